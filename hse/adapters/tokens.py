"""Access tokens (JWT, RFC 9068) and the random secrets of links, refresh tokens and API keys."""

import base64
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from uuid import UUID, uuid4

import jwt

from hse.adapters.sealing import derived_key

ALGORITHM = "HS256"
ISSUER = "hse"
AUDIENCE = "hse-api"
TYPE = "at+jwt"
ACCESS_TOKEN_LIFETIME = timedelta(minutes=15)
CLAIMS = ["iss", "aud", "sub", "sid", "iat", "exp", "jti"]
SECRET_BYTES = 32
TOKENS_REMEMBERED_MAX = 10_000
KEY_SCHEME = "hse"
KEY_PREFIX_BYTES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedKey:
    """An API key as it is told once, and what is kept of it."""

    text: str = field(repr=False)
    prefix: str
    secret_hash: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessClaims:
    """What a valid access token says."""

    user_id: UUID
    session_id: UUID


class AccessTokens:
    """Signs and reads access tokens. What they say is whose session it is, and nothing of what it may: that is looked up."""

    def __init__(self, secret_key: str) -> None:
        self._key = derived_key(secret_key, "access tokens")
        # What a signed token says never changes, so it is read once; whether its time is over is asked each time.
        self._read_once = lru_cache(TOKENS_REMEMBERED_MAX)(self._read)

    def issue(self, user_id: UUID, session_id: UUID, now: datetime) -> str:
        """A token for 15 minutes."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "sid": str(session_id),
            "iat": int(now.timestamp()),
            "exp": int((now + ACCESS_TOKEN_LIFETIME).timestamp()),
            "jti": uuid4().hex,
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"typ": TYPE})

    def session_of(self, token: str) -> UUID | None:
        """The session of a valid token; None for any other."""
        claims = self.read(token)
        return None if claims is None else claims.session_id

    def read(self, token: str) -> AccessClaims | None:
        """What a valid token says; None for any other."""
        try:
            claims, expires_at = self._read_once(token)
        except (jwt.InvalidTokenError, ValueError, TypeError, AttributeError):
            return None
        return claims if time.time() < expires_at else None

    def _read(self, token: str) -> tuple[AccessClaims, int]:
        decoded = jwt.decode_complete(
            token, self._key, algorithms=[ALGORITHM], audience=AUDIENCE, issuer=ISSUER, options={"require": CLAIMS}
        )
        payload = decoded["payload"]
        if decoded["header"].get("typ") != TYPE:
            raise jwt.InvalidTokenError("another type")
        return AccessClaims(user_id=UUID(payload["sub"]), session_id=UUID(payload["sid"])), int(payload["exp"])


def new_secret() -> str:
    """256 random bits, as text for a link or a header."""
    return secrets.token_urlsafe(SECRET_BYTES)


def hash_of(secret: str) -> bytes:
    """What is kept of a secret of 256 random bits: SHA-256 is enough, as so many bits cannot be guessed."""
    return hashlib.sha256(secret.encode()).digest()


def new_key() -> IssuedKey:
    """A new API key: `hse_<prefix>_<secret>`. The prefix finds it and may be shown; the secret is told this once."""
    prefix = base64.b32encode(secrets.token_bytes(KEY_PREFIX_BYTES)).decode().rstrip("=").lower()
    secret = secrets.token_hex(SECRET_BYTES)
    return IssuedKey(text=f"{KEY_SCHEME}_{prefix}_{secret}", prefix=prefix, secret_hash=hash_of(secret))


def split_key(text: str) -> tuple[str, bytes] | None:
    """The prefix of an API key and the hash of its secret; None when it has not that form."""
    scheme, _, rest = text.partition("_")
    prefix, _, secret = rest.partition("_")
    if scheme != KEY_SCHEME or not prefix.isalnum() or not secret.isalnum() or not text.isascii() or len(text) > 200:
        return None
    return prefix, hash_of(secret)


class RefreshTokenMaker:
    """Makes refresh tokens. A successor is an HMAC of its predecessor: who presents that gets it again, and nobody guesses it."""

    def __init__(self, secret_key: str) -> None:
        self._key = derived_key(secret_key, "refresh tokens")

    def new(self) -> str:
        """The first token of a session."""
        return new_secret()

    def successor(self, token: str) -> str:
        """The token that follows this one."""
        digest = hmac.digest(self._key, token.encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def hash(self, token: str) -> bytes:
        """What is kept of a token."""
        return hash_of(token)


class CsrfTokens:
    """What a browser's page sends back to show that it may read the session's cookies."""

    def __init__(self, secret_key: str) -> None:
        self._key = derived_key(secret_key, "cross-site requests")

    def token_of(self, session_id: UUID) -> str:
        """The token of a session, the same as long as it lasts."""
        return hmac.new(self._key, session_id.bytes, hashlib.sha256).hexdigest()

    def is_token_of(self, session_id: UUID, token: str | None) -> bool:
        """Whether it is the session's; compared in constant time."""
        return hmac.compare_digest(self.token_of(session_id).encode(), (token or "").encode())
