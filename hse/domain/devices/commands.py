"""What may be done to devices. One stands at an establishment, or is not placed yet and belongs to the organisation as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hse.domain.devices.device_profiles import check_profile
from hse.domain.devices.model import (
    ChildHasNoToken,
    Device,
    IssuedToken,
    StillGateway,
    TokenMustGoFirst,
    UnusableGateway,
    checked_values,
)
from hse.domain.devices.ports import DevicesWork
from hse.domain.errors import Forbidden, Invalid
from hse.domain.work import UNCHANGED, Unchanged, changes_of, seen, values_of, within_act

# What a gateway may call a child.
CALLED_BY = ("name", "serial_number")


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateDevice:
    """A new device: at an establishment, or of an organisation and not placed yet."""

    name: str
    organization_id: UUID | None = None
    establishment_id: UUID | None = None
    area_id: UUID | None = None
    gateway_id: UUID | None = None
    profile_id: UUID | None = None
    device_type: str = "sensor"
    manufacturer: str | None = None
    model: str | None = None
    serial_number: str | None = None
    mac_address: str | None = None
    ip_address: str | None = None
    protocol: str = "hdp"
    modbus: Mapping[str, Any] | None = None
    is_enabled: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeDevice:
    """What changes of a device. It moves within its organisation; at another establishment it is in no area unless one is named."""

    name: str | Unchanged = UNCHANGED
    establishment_id: UUID | Unchanged | None = UNCHANGED
    area_id: UUID | Unchanged | None = UNCHANGED
    gateway_id: UUID | Unchanged | None = UNCHANGED
    profile_id: UUID | Unchanged | None = UNCHANGED
    device_type: str | Unchanged = UNCHANGED
    manufacturer: str | Unchanged | None = UNCHANGED
    model: str | Unchanged | None = UNCHANGED
    serial_number: str | Unchanged | None = UNCHANGED
    mac_address: str | Unchanged | None = UNCHANGED
    ip_address: str | Unchanged | None = UNCHANGED
    protocol: str | Unchanged = UNCHANGED
    modbus: Mapping[str, Any] | Unchanged | None = UNCHANGED
    is_enabled: bool | Unchanged = UNCHANGED
    metadata: Mapping[str, Any] | Unchanged = UNCHANGED


async def create_device(work: DevicesWork, command: CreateDevice) -> Device:
    """Register a device; it connects once it is given a token. One that is not placed needs the reach of its whole organisation.

    Raises `NotFound`, `Forbidden`, `Invalid`, `InvalidDeviceName`, `UnusableGateway`, `Taken`.
    """
    values = checked_values(values_of(command))
    organization_id = await _organization_of_new(work, command)
    await _check_area(work, command.establishment_id, command.area_id)
    if command.gateway_id is not None:
        await _check_gateway(work, organization_id, command.gateway_id, "create_device")
    await check_profile(work, organization_id, command.profile_id)
    return await work.devices.add({**values, "organization_id": organization_id})


async def change_device(
    work: DevicesWork, device_id: UUID, command: ChangeDevice, *, version: int | None = None
) -> Device:
    """Change, move, enable or disable a device. To move it takes the permission at both places.

    Raises `NotFound`, `Forbidden`, `Invalid`, `InvalidDeviceName`, `UnusableGateway`, `StillGateway`, `TokenMustGoFirst`, `Taken`,
    `Stale`.
    """
    before = await within_act(work, work.devices, device_id, see="read_device", act="update_device")
    changes = checked_values(changes_of(command))
    establishment_id = changes.get("establishment_id", before.establishment_id)
    if establishment_id != before.establishment_id:
        await _check_move(work, before, establishment_id)
        changes.setdefault("area_id", None)
    area_id = changes.get("area_id", before.area_id)
    if (establishment_id, area_id) != (before.establishment_id, before.area_id):
        await _check_area(work, establishment_id, area_id)
    gateway_id = changes.get("gateway_id", before.gateway_id)
    if gateway_id is not None:
        if gateway_id != before.gateway_id:
            await _check_child(work, before, gateway_id)
        elif any(one in changes and changes[one] != getattr(before, one) for one in CALLED_BY):
            await _check_gateway(work, before.organization_id, gateway_id, "update_device")
    if changes.get("profile_id", before.profile_id) != before.profile_id:
        await check_profile(work, before.organization_id, changes["profile_id"])
    return await work.devices.change(before, changes, version=version)


async def delete_device(work: DevicesWork, device_id: UUID) -> None:
    """Delete a device without children; what it reported stays. Raises `NotFound`, `Forbidden`, `InUse`."""
    before = await within_act(work, work.devices, device_id, see="read_device", act="delete_device")
    await work.devices.remove(before)


async def issue_token(work: DevicesWork, device_id: UUID) -> IssuedToken:
    """Give a device a new token, told this once; one that it had is worth nothing from the commit on.

    Raises `NotFound`, `Forbidden`, `ChildHasNoToken`, `Stale`.
    """
    before = await within_act(work, work.devices, device_id, see="read_device", act="manage_device_token")
    if before.gateway_id is not None:
        raise ChildHasNoToken(before.id)
    token = work.new_device_token()
    await work.devices.keep_token(before, token)
    return IssuedToken(device_id=before.id, token=token.text)


async def revoke_token(work: DevicesWork, device_id: UUID) -> None:
    """Take a device's token away; an open connection is closed. Raises `NotFound`, `Forbidden`, `ChildHasNoToken`, `Stale`."""
    before = await within_act(work, work.devices, device_id, see="read_device", act="manage_device_token")
    if before.has_token:
        await work.devices.keep_token(before, None)
    elif before.gateway_id is not None:
        raise ChildHasNoToken(before.id)


async def _organization_of_new(work: DevicesWork, command: CreateDevice) -> UUID:
    """Whose the new device is, once it is clear that the actor may register it there."""
    if command.establishment_id is not None:
        establishment = await within_act(
            work, work.establishments, command.establishment_id, see="read_establishment", act="create_device"
        )
        if command.organization_id not in (None, establishment.organization_id):
            raise Invalid("organization_id", "is not the organisation of this establishment: leave it out")
        return establishment.organization_id
    if command.organization_id is None:
        raise Invalid("establishment_id", "say where the device stands, or whose it is with organization_id")
    organization = await seen(work.organizations, work.actor.reach("read_organization"), command.organization_id)
    if not work.actor.reach("create_device").has_site(organization.id, None):
        raise Forbidden("create_device")
    return organization.id


async def _check_move(work: DevicesWork, device: Device, establishment_id: UUID | None) -> None:
    if establishment_id is None:
        if not work.actor.reach("update_device").has_site(device.organization_id, None):
            raise Forbidden("update_device")
        return
    establishment = await within_act(
        work, work.establishments, establishment_id, see="read_establishment", act="update_device"
    )
    if establishment.organization_id != device.organization_id:
        raise Invalid("establishment_id", "is of another organisation: a device stays with its own")


async def _check_area(work: DevicesWork, establishment_id: UUID | None, area_id: UUID | None) -> None:
    """Raises `Invalid` unless it is an area of this establishment that the actor may see: one answer for both."""
    if area_id is None:
        return
    area = await work.areas.find(area_id, work.actor.reach("read_area"))
    if area is None or area.establishment_id != establishment_id:
        raise Invalid("area_id", "is no area of this establishment")


async def _check_gateway(work: DevicesWork, organization_id: UUID, gateway_id: UUID, act: str) -> None:
    """Raises `UnusableGateway`; `Forbidden` without `act` at its place: what it says of a name goes to the child of that name."""
    gateway = await work.devices.find(gateway_id, work.actor.reach("read_device"))
    if gateway is None or gateway.organization_id != organization_id or gateway.gateway_id is not None:
        raise UnusableGateway(gateway_id)
    if not gateway.is_within(work.actor.reach(act)):
        raise Forbidden(act)


async def _check_child(work: DevicesWork, device: Device, gateway_id: UUID) -> None:
    if gateway_id == device.id:
        raise UnusableGateway(gateway_id)
    await _check_gateway(work, device.organization_id, gateway_id, "update_device")
    if device.has_token:
        raise TokenMustGoFirst(device.id)
    if await work.devices.has_children(device.id):
        raise StillGateway(device.id)
