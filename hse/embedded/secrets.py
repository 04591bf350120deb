"""Passwords of the embedded servers: random, one file each, closed to others."""

import os
import secrets
import stat
from pathlib import Path

from hse.embedded.account import Account, EmbeddedServerError, make_private_directory

PASSWORD_BYTES = 24


def password(directory: Path, name: str, account: Account) -> str:
    """Return the password `name`, making it on the first call; refuse a file that others may read."""
    make_private_directory(directory, account)
    path = directory / name
    if not path.exists():
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(PASSWORD_BYTES))
            os.fsync(file.fileno())
            os.fchown(file.fileno(), account.uid, account.gid)
        draft.rename(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise EmbeddedServerError(
            f"{path} can be read by others: `chmod 600 {path}`, and change the password if they may have"
        )
    text = path.read_text(encoding="ascii").strip()
    if not text:
        raise EmbeddedServerError(f"{path} is empty: restore it from a backup of the data directory")
    return text
