"""Devices, and the rule by which they are named and given tokens."""

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar
from uuid import UUID

from hse.domain.errors import DomainError, ErrorKind

TOKEN_ENTROPY_BYTES = 32
NAME_CHARS_MAX = 200
DEVICES_PER_COMMAND_MAX = 100_000


class UnknownDevice(DomainError):
    """No device has this id."""

    kind: ClassVar[ErrorKind] = ErrorKind.NOT_FOUND
    code: ClassVar[str] = "devices.unknown"

    def __init__(self, device_id: UUID) -> None:
        super().__init__(f"no device {device_id}")
        self.device_id = device_id


class UnusableGateway(DomainError):
    """A gateway is a device of the same organisation that is not itself behind a gateway."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "devices.unusable-gateway"

    def __init__(self, gateway_id: UUID) -> None:
        super().__init__(
            f"device {gateway_id} cannot be a gateway here: unknown, of another organisation, or a child itself"
        )
        self.gateway_id = gateway_id


class InvalidDeviceName(DomainError):
    """Device and organisation names have 1 to 200 characters, the number of a numbered device included."""

    kind: ClassVar[ErrorKind] = ErrorKind.INVALID
    code: ClassVar[str] = "devices.invalid-name"

    def __init__(self, name: str) -> None:
        super().__init__(f"a name has 1 to {NAME_CHARS_MAX} characters and none of them is NUL: {name[:40]!r}")
        self.name = name


class InvalidDeviceCount(DomainError):
    """One command adds 1 to 100 000 devices."""

    kind: ClassVar[ErrorKind] = ErrorKind.INVALID
    code: ClassVar[str] = "devices.invalid-count"

    def __init__(self, count: int) -> None:
        super().__init__(f"1 to {DEVICES_PER_COMMAND_MAX} devices can be added at once, not {count}")
        self.count = count


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceToken:
    """A token as it is told once (`text`) and as it is kept (`sha256`, of the text's bytes)."""

    text: str = field(repr=False)
    sha256: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedDevice:
    """What a person is told once, when a token is issued; `token` is None for a child, which its gateway speaks for."""

    device_id: UUID
    name: str
    token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device as the registry lists it."""

    device_id: UUID
    name: str
    organization: str
    gateway_id: UUID | None
    has_token: bool
    is_enabled: bool
    created_at: datetime


def token_from_entropy(entropy: bytes) -> DeviceToken:
    """Makes a token of 256 random bits. SHA-256 without salt or stretching is enough: so many bits cannot be guessed.

    Raises `ValueError` when `entropy` is not 32 bytes.
    """
    if len(entropy) != TOKEN_ENTROPY_BYTES:
        raise ValueError(f"a token is made of {TOKEN_ENTROPY_BYTES} random bytes, not {len(entropy)}")
    text = base64.urlsafe_b64encode(entropy).rstrip(b"=").decode("ascii")
    return DeviceToken(text=text, sha256=hashlib.sha256(text.encode("ascii")).digest())


def checked_name(name: str) -> str:
    """Returns `name`; raises `InvalidDeviceName` when it cannot be stored."""
    if not 1 <= len(name) <= NAME_CHARS_MAX or "\0" in name:
        raise InvalidDeviceName(name)
    return name


def numbered_names(name: str, count: int) -> list[str]:
    """The names of `count` devices called `name`: itself for one, else numbered so that they sort ("door-007").

    Raises `InvalidDeviceCount`, `InvalidDeviceName`.
    """
    if not 1 <= count <= DEVICES_PER_COMMAND_MAX:
        raise InvalidDeviceCount(count)
    if count == 1:
        return [checked_name(name)]
    checked_name(name)
    width = len(str(count))
    return [checked_name(f"{name}-{number:0{width}}") for number in range(1, count + 1)]
