"""Who the simulated devices are: ids and tokens in a file that is closed to others, and a boot counter beside it."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from hse.failure import Failure


class NotIdentities(Failure):
    """The file does not hold what `hse devices add --json` prints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A device and the token that it authenticates with."""

    device_id: UUID
    token: str = field(repr=False)
    name: str


def load_identities(path: Path) -> list[Identity]:
    """Read what `save_identities`, or `hse devices add --json`, wrote; nothing when there is no file. Raises `NotIdentities`."""
    if not path.exists():
        return []
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
        return [
            Identity(device_id=UUID(item["device_id"]), token=str(item["token"]), name=str(item["name"]))
            for item in items
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise NotIdentities(f"{path} does not hold a list of device_id, token and name: {error!r}") from error


def save_identities(path: Path, identities: list[Identity]) -> None:
    """Write the file whole or not at all."""
    items = [{"device_id": str(one.device_id), "token": one.token, "name": one.name} for one in identities]
    write_whole(path, json.dumps(items, indent=1))


def next_boot(path: Path) -> int:
    """Count a boot in the file and return its number, the first being 1. It is on the disk before it is used."""
    boot = _read_number(path, default=0) + 1
    write_whole(path, f"{boot}\n")
    return boot


def kept_number(path: Path, first: int) -> int:
    """Return the number in the file, writing `first` there when there is none yet."""
    number = _read_number(path, default=0)
    if number == 0:
        write_whole(path, f"{first}\n")
        return first
    return number


def _read_number(path: Path, *, default: int) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return default


def write_whole(path: Path, text: str) -> None:
    """Write a file that is closed to others, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
