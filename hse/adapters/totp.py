"""One-time codes of authenticator apps (TOTP, RFC 6238), and the recovery codes for who has lost his."""

import base64
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO

import pyotp
import segno

from hse.adapters.sealing import Sealer, derived_key

ISSUER = "HSE"
STEP_SECONDS = 30
# A clock may be off by one step, either way.
STEPS_AROUND = 1
RECOVERY_CODES = 10
RECOVERY_CODE_BYTES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFactor:
    """A secret as it is told once, as text, as what an app reads, and as a picture of that."""

    secret: str = field(repr=False)
    uri: str = field(repr=False)
    svg: str = field(repr=False)
    sealed: bytes = field(repr=False)


class TotpFactor:
    """Makes and reads secrets and codes. The database gets secrets sealed, and recovery codes hashed with a key it has not."""

    def __init__(self, sealer: Sealer, secret_key: str) -> None:
        self._sealer = sealer
        self._key = derived_key(secret_key, "recovery codes")

    def new_factor(self, email: str) -> NewFactor:
        """A new secret for this user."""
        secret = pyotp.random_base32()
        uri = pyotp.TOTP(secret, interval=STEP_SECONDS).provisioning_uri(name=email, issuer_name=ISSUER)
        picture = BytesIO()
        segno.make(uri, micro=False).save(picture, kind="svg", scale=4, xmldecl=False)
        return NewFactor(
            secret=secret, uri=uri, svg=picture.getvalue().decode(), sealed=self._sealer.seal(secret.encode())
        )

    def counter_of(self, sealed: bytes, code: str, now: datetime) -> int | None:
        """The step that the code belongs to, of this and its neighbours; None for a wrong code."""
        totp = pyotp.TOTP(self._sealer.unseal(sealed).decode(), interval=STEP_SECONDS)
        current = int(now.timestamp()) // STEP_SECONDS
        found = None
        for counter in range(current - STEPS_AROUND, current + STEPS_AROUND + 1):
            if hmac.compare_digest(totp.generate_otp(counter).encode(), code.encode()):
                found = counter
        return found

    def new_recovery_codes(self) -> list[str]:
        """Ten codes of 80 bits, as people can type them."""
        return [_spelt(secrets.token_bytes(RECOVERY_CODE_BYTES)) for _ in range(RECOVERY_CODES)]

    def recovery_hash(self, code: str) -> bytes:
        """What is kept of a recovery code, however it is spelt."""
        plain = "".join(character for character in code.casefold() if character.isalnum())
        return hmac.digest(self._key, plain.encode(), "sha256")


def _spelt(code: bytes) -> str:
    text = base64.b32encode(code).decode().lower()
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))
