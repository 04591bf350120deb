"""The user who runs the embedded servers.

PostgreSQL refuses to run as root. An ordinary user runs the servers as himself; root lends them a system user of their own.
"""

import contextlib
import errno
import os
import pwd
import shutil
import stat
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hse.failure import Failure

SERVER_ACCOUNT_NAME = "hse-data"

ACL_XATTR = "system.posix_acl_access"
ACL_VERSION = 2
ACL_USER_OBJ, ACL_USER, ACL_GROUP_OBJ, ACL_MASK, ACL_OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
ACL_NO_ID = 0xFFFFFFFF
MAY_SEARCH = 1

AclEntry = tuple[int, int, int]  # tag, permissions, id


class EmbeddedServerError(Failure):
    """An embedded server cannot be prepared or started; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user of the operating system."""

    name: str
    uid: int
    gid: int

    @property
    def ids(self) -> tuple[int, int] | None:
        """The user and group to change to; None when they are those of this process."""
        return None if self.uid == os.geteuid() else (self.uid, self.gid)


def server_account() -> Account:
    """Return the account of the embedded servers, creating the system user when root runs this for the first time."""
    if os.geteuid() != 0:
        entry = pwd.getpwuid(os.geteuid())
        return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)
    with contextlib.suppress(KeyError):
        return _named(SERVER_ACCOUNT_NAME)
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        raise EmbeddedServerError(
            f"PostgreSQL does not run as root, and there is no `useradd` to make the user {SERVER_ACCOUNT_NAME!r}: "
            "create that user, or run as an ordinary user"
        )
    made = subprocess.run(
        [
            useradd,
            "--system",
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
            "--shell",
            "/usr/sbin/nologin",
            SERVER_ACCOUNT_NAME,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return _named(SERVER_ACCOUNT_NAME)  # also when another process made it in the same moment
    except KeyError:
        raise EmbeddedServerError(f"cannot make the user {SERVER_ACCOUNT_NAME!r}: {made.stderr.strip()}") from None


def _named(name: str) -> Account:
    entry = pwd.getpwnam(name)
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def make_private_directory(path: Path, account: Account) -> None:
    """Make `path` a directory that only `account` may enter; refuse one that belongs to somebody else."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = path.stat().st_uid
    if owner not in (account.uid, os.geteuid()):
        raise EmbeddedServerError(
            f"{path} belongs to user id {owner}, not to {account.name}: choose another data directory"
        )
    os.chown(path, account.uid, account.gid)
    path.chmod(0o700)


def let_account_reach(path: Path, account: Account) -> None:
    """Let `account` search the directories above `path`, and nothing more.

    A data directory under `/root` or a temporary directory of mode 0700 is closed to the servers' user. An access-control
    entry for that one user opens the way without showing anything to anybody else.
    """
    if account.ids is None:
        return
    for directory in path.resolve().parents:
        status = directory.stat()
        is_open = status.st_mode & stat.S_IXOTH or status.st_uid == account.uid
        if is_open:
            continue
        try:
            _grant_search(directory, account.uid)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EROFS):
                raise
            raise EmbeddedServerError(
                f"user {account.name!r}, who runs the embedded servers, cannot reach {path} through {directory}: "
                f"`chmod o+x {directory}`, or choose another place"
            ) from error


def _grant_search(directory: Path, uid: int) -> None:
    """Add `user:uid:--x` to the POSIX access-control list of `directory`, as `setfacl -m` does."""
    present = _read_acl(directory)
    entries = [entry for entry in present if entry[0] != ACL_MASK and (entry[0], entry[2]) != (ACL_USER, uid)]
    entries.append((ACL_USER, MAY_SEARCH, uid))
    # The mask limits every entry but the owner's and the others'. A `chmod` rewrites it, so it is looked at even when the
    # user's entry is there already.
    mask = 0
    for tag, permissions, _ in entries:
        if tag not in (ACL_USER_OBJ, ACL_OTHER):
            mask |= permissions
    entries.append((ACL_MASK, mask, ACL_NO_ID))
    entries.sort(key=lambda entry: (entry[0], entry[2]))
    if entries != present:
        packed = b"".join(struct.pack("<HHI", *entry) for entry in entries)
        os.setxattr(directory, ACL_XATTR, struct.pack("<I", ACL_VERSION) + packed)


def _read_acl(directory: Path) -> list[AclEntry]:
    try:
        packed = os.getxattr(directory, ACL_XATTR)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
        mode = directory.stat().st_mode
        return [
            (ACL_USER_OBJ, mode >> 6 & 7, ACL_NO_ID),
            (ACL_GROUP_OBJ, mode >> 3 & 7, ACL_NO_ID),
            (ACL_OTHER, mode & 7, ACL_NO_ID),
        ]
    return list(struct.iter_unpack("<HHI", packed[4:]))
