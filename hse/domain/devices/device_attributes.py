"""The attributes of a device, its shadow: what it is desired to be, by people, and what it reported to be, by itself.

Each of the two is one JSON object with a version of its own. People change what is desired by merging (RFC 7396): what is named is
replaced, null takes it away, objects are merged. What a device reported is not theirs to change. It is told of what is desired by
whoever speaks with it, which is heard of through a port; when it was away meanwhile, it gets what is desired then, and nothing of
what was in between.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

from hse.domain.devices.model import Device
from hse.domain.devices.ports import DevicesWork
from hse.domain.errors import Forbidden, Invalid
from hse.domain.metadata import is_deeper_than
from hse.domain.work import within_act

SEE_ATTRIBUTES: Final = "read_device_attribute"
MANAGE_ATTRIBUTES: Final = "manage_device_attribute"
ATTRIBUTES_BYTES_MAX: Final = 16 * 1024
ATTRIBUTES_DEPTH_MAX: Final = 8
NAME_CHARS_MAX: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAttributes:
    """A device's attributes. `delta` is what is desired and not reported; empty: the device is as it should be.

    `version` counts the changes of what is desired, `reported_version` those of what was reported; 0 is before the first.
    """

    device_id: UUID
    organization_id: UUID
    establishment_id: UUID | None
    desired: Mapping[str, Any]
    reported: Mapping[str, Any]
    delta: Mapping[str, Any]
    version: int
    reported_version: int
    desired_at: datetime | None
    reported_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeDeviceAttributes:
    """What is merged into what is desired."""

    desired: Mapping[str, Any]


class DeviceAttributesStore(Protocol):
    """The attributes of devices. The audit log holds which ones changed and none of their values: one may be a password."""

    async def find(self, device: Device) -> DeviceAttributes:
        """Those of a device; empty before anybody said anything."""

    async def change_desired(
        self, before: DeviceAttributes, desired: Mapping[str, Any], *, version: int | None = None
    ) -> DeviceAttributes:
        """Keep what is desired; no change writes nothing. Raises `Stale`."""


class AttributesRoad(Protocol):
    """The way to those who speak with devices."""

    async def tell_desired(self, after: DeviceAttributes) -> None:
        """Have them look at what this device is desired to be, once this transaction is kept. It may be lost: the row is not."""


class AttributesWork(DevicesWork, Protocol):
    """A transaction with what is needed here."""

    @property
    def device_attributes(self) -> DeviceAttributesStore:
        """The attributes of devices."""

    @property
    def attributes_road(self) -> AttributesRoad:
        """The way to those who speak with devices."""


async def device_attributes(work: AttributesWork, device_id: UUID) -> DeviceAttributes:
    """What a device is desired and reported to be. Raises `NotFound`, `Forbidden`."""
    device = await within_act(work, work.devices, device_id, see="read_device", act=SEE_ATTRIBUTES)
    return await work.device_attributes.find(device)


async def change_device_attributes(
    work: AttributesWork, device_id: UUID, command: ChangeDeviceAttributes, *, version: int | None = None
) -> DeviceAttributes:
    """Merge something into what a device is desired to be; it is told of it.

    Raises `NotFound`, `Forbidden`, `Invalid`, `Stale`.
    """
    device = await within_act(work, work.devices, device_id, see="read_device", act=SEE_ATTRIBUTES)
    if not device.is_within(work.actor.reach(MANAGE_ATTRIBUTES)):
        raise Forbidden(MANAGE_ATTRIBUTES)
    check_attributes(command.desired)
    before = await work.device_attributes.find(device)
    desired = merged(before.desired, command.desired)
    check_attributes(desired)
    after = await work.device_attributes.change_desired(before, desired, version=version)
    if after.version != before.version:
        await work.attributes_road.tell_desired(after)
    return after


def merged(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The document after a merge patch (RFC 7396). Both nest no deeper than `check_attributes` allows."""
    after = {name: value for name, value in document.items() if name not in changes}
    for name, value in changes.items():
        if isinstance(value, Mapping):
            inner = document.get(name)
            after[name] = merged(inner if isinstance(inner, Mapping) else {}, value)
        elif value is not None:
            after[name] = value
    return after


def delta_of(desired: Mapping[str, Any], reported: Mapping[str, Any]) -> dict[str, Any]:
    """What of the desired is not so in what was reported; merged into that, it would be as desired."""
    delta: dict[str, Any] = {}
    for name, value in desired.items():
        known = reported.get(name)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            if inner := delta_of(value, known):
                delta[name] = inner
        elif name not in reported or not _is_same(value, known):
            delta[name] = value
    return delta


def changed_names(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The names of the outermost attributes that are otherwise, came or went, in order."""
    return sorted(
        name
        for name in before.keys() | after.keys()
        if (name in before) != (name in after) or not _is_same(before[name], after[name])
    )


def check_attributes(document: Mapping[str, Any], field: str = "desired") -> None:
    """Raises `Invalid` for more than 16 KiB of JSON or 8 levels of it, a name that is none, and what cannot be kept as text."""
    if is_deeper_than(ATTRIBUTES_DEPTH_MAX, document):
        raise Invalid(field, f"nests {ATTRIBUTES_DEPTH_MAX} levels deep at most")
    try:
        num_bytes = len(json.dumps(document, ensure_ascii=False, allow_nan=False).encode())
    except UnicodeEncodeError as error:
        raise Invalid(field, "holds half a character, which is no text") from error
    except ValueError as error:
        raise Invalid(field, "holds a number beyond all numbers") from error
    if num_bytes > ATTRIBUTES_BYTES_MAX:
        raise Invalid(field, f"has {ATTRIBUTES_BYTES_MAX} bytes of JSON at most, with what is there already")
    _check_texts(field, document)


def _check_texts(field: str, value: object) -> None:
    if isinstance(value, str) and "\0" in value:
        raise Invalid(field, "has no NUL characters")
    if isinstance(value, Mapping):
        for name in value:
            if not 1 <= len(name) <= NAME_CHARS_MAX:
                raise Invalid(field, f"names of attributes have 1 to {NAME_CHARS_MAX} characters: {name[:40]!r}")
            _check_texts(field, name)
            _check_texts(field, value[name])
    elif isinstance(value, list):
        for inner in value:
            _check_texts(field, inner)


def _is_same(one: object, other: object) -> bool:
    """Whether two values are the same JSON: 1 and 1.0 are, 1 and true are not."""
    return json.dumps(_plain(one), sort_keys=True) == json.dumps(_plain(other), sort_keys=True)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
