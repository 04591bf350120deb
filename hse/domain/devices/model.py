"""Devices, and the rules by which they are named, addressed and given tokens."""

import base64
import hashlib
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from hse.domain.devices.modbus import checked_address
from hse.domain.errors import DomainError, ErrorKind, Invalid
from hse.domain.metadata import check_metadata
from hse.domain.policy import Reach

TOKEN_ENTROPY_BYTES = 32
NAME_CHARS_MAX = 200
# What a device says of itself in words, beside its name: characters at most.
WORD_CHARS_MAX = {"device_type": 50, "manufacturer": 200, "model": 200, "serial_number": 200, "protocol": 50}
# Which of them cannot be empty.
WORDS_NEVER_EMPTY = {"device_type", "serial_number", "protocol"}
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
# Six pairs of digits with ":" or "-" between all of them, three groups with ".", or twelve digits.
MAC_ADDRESS = re.compile(
    r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}|[0-9a-f]{2}(?:-[0-9a-f]{2}){5}|[0-9a-f]{4}(?:\.[0-9a-f]{4}){2}|[0-9a-f]{12}"
)
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


class ChildHasNoToken(DomainError):
    """A gateway speaks for its children: they cannot connect by themselves."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "devices.child-has-no-token"

    def __init__(self, device_id: UUID) -> None:
        super().__init__(f"device {device_id} is behind a gateway, which speaks for it: it has no token of its own")
        self.device_id = device_id


class TokenMustGoFirst(DomainError):
    """A device that can connect by itself is not put behind a gateway: it would be cut off without a word."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "devices.token-must-go-first"

    def __init__(self, device_id: UUID) -> None:
        super().__init__(f"device {device_id} has a token of its own: revoke it before a gateway speaks for the device")
        self.device_id = device_id


class StillGateway(DomainError):
    """A device that speaks for others cannot be behind a gateway itself."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "devices.still-gateway"

    def __init__(self, device_id: UUID) -> None:
        super().__init__(f"device {device_id} is a gateway with children: give them another one first")
        self.device_id = device_id


class InvalidDeviceName(DomainError):
    """Device and organisation names have 1 to 200 characters, the number of a numbered device included."""

    kind: ClassVar[ErrorKind] = ErrorKind.INVALID
    code: ClassVar[str] = "devices.invalid-name"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"a name has 1 to {NAME_CHARS_MAX} characters and none of them is a control character: {name[:40]!r}"
        )
        self.field = "name"
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
class IssuedToken:
    """A device's token, told this once."""

    device_id: UUID
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device. Without an area it belongs to the establishment as a whole, without an establishment it is not placed yet.

    A child reports through its gateway; any other device connects by itself once it has a token.
    """

    id: UUID
    organization_id: UUID
    establishment_id: UUID | None
    area_id: UUID | None
    gateway_id: UUID | None
    profile_id: UUID | None
    name: str
    device_type: str
    manufacturer: str | None
    model: str | None
    serial_number: str | None
    mac_address: str | None
    ip_address: str | None
    protocol: str
    # Where it answers, when it is polled: `hse.domain.devices.modbus`.
    modbus: Mapping[str, Any] | None
    status: str
    is_enabled: bool
    has_token: bool
    metadata: Mapping[str, Any]
    version: int
    created_at: datetime
    updated_at: datetime

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it."""
        return reach.has_site(self.organization_id, self.establishment_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredDevice:
    """A device as the operator's commands list it."""

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
    """Returns `name`; raises `InvalidDeviceName` when it is empty, too long, or more than one line of text."""
    if not 1 <= len(name) <= NAME_CHARS_MAX or CONTROL_CHARACTER.search(name):
        raise InvalidDeviceName(name)
    return name


def checked_mac_address(text: str) -> str:
    """The address in its canonical form, such as 00:1b:44:11:3a:b7. Raises `Invalid`."""
    digits = text.strip().lower()
    if MAC_ADDRESS.fullmatch(digits) is None:
        raise Invalid("mac_address", f"{text[:40]!r} is no MAC address, such as 00:1b:44:11:3a:b7")
    digits = re.sub(r"[:.-]", "", digits)
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))


def checked_ip_address(text: str) -> str:
    """The address (IPv4 or IPv6, of one device, without a zone) in its canonical form. Raises `Invalid`."""
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError as error:
        raise Invalid("ip_address", f"{text[:60]!r} is no IPv4 or IPv6 address, such as 192.0.2.7") from error
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise Invalid("ip_address", "leave out the zone behind the %: it means something on one machine only")
        return str(address.ipv4_mapped or address)
    return str(address)


def checked_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a new or changed device, addresses in their canonical form. Raises `Invalid`, `InvalidDeviceName`."""
    checked = dict(values)
    if "name" in checked:
        checked_name(checked["name"])
    for name, chars_max in WORD_CHARS_MAX.items():
        _check_word(name, checked.get(name), chars_max)
    if checked.get("mac_address") is not None:
        checked["mac_address"] = checked_mac_address(checked["mac_address"])
    if checked.get("ip_address") is not None:
        checked["ip_address"] = checked_ip_address(checked["ip_address"])
    if checked.get("modbus") is not None:
        checked["modbus"] = checked_address(checked["modbus"])
    if "metadata" in checked:
        check_metadata(checked["metadata"])
    return checked


def _check_word(name: str, word: str | None, chars_max: int) -> None:
    if word is None:
        return
    if len(word) > chars_max or (not word and name in WORDS_NEVER_EMPTY):
        raise Invalid(name, f"has {1 if name in WORDS_NEVER_EMPTY else 0} to {chars_max} characters")
    if CONTROL_CHARACTER.search(word):
        raise Invalid(name, "is one line of text, without control characters")


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
