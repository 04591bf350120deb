"""Encryption of what the database keeps for the processes and must not know: one-time links, TOTP secrets, answers with tokens."""

import base64
import hashlib

from cryptography.fernet import Fernet, InvalidToken

from hse.failure import Failure


class WrongKey(Failure):
    """Something was sealed with another HSE_SECRET_KEY."""


class Sealer:
    """Seals and unseals with a key of its own, derived from HSE_SECRET_KEY."""

    def __init__(self, secret_key: str) -> None:
        self._fernet = Fernet(base64.urlsafe_b64encode(derived_key(secret_key, "sealing")))

    def seal(self, plain: bytes) -> bytes:
        """Encrypt and authenticate."""
        return self._fernet.encrypt(plain)

    def unseal(self, sealed: bytes) -> bytes:
        """Decrypt. Raises `WrongKey`."""
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken as error:
            raise WrongKey("this was sealed with another HSE_SECRET_KEY: set the one it was made with") from error


def derived_key(secret_key: str, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose, so that no two uses share one."""
    return hashlib.blake2b(purpose.encode(), key=hashlib.sha256(secret_key.encode()).digest(), digest_size=32).digest()
