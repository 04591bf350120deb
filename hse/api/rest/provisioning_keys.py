"""Provisioning keys: how devices get in by themselves."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, UnsetType

from hse.api.acting import Acts, Version
from hse.api.bodies import Body, Name, given
from hse.api.paging import Paged, filtered
from hse.domain.devices import provisioning_keys as desk
from hse.domain.devices.provisioning_keys import IssuedProvisioningKey, ProvisioningKey
from hse.domain.paging import Page

DevicesMax = Annotated[int, msgspec.Meta(ge=1, le=desk.DEVICES_MAX_MAX, examples=[500])]
Moment = Annotated[datetime, msgspec.Meta(tz=True, examples=["2038-01-01T00:00:00Z"])]


class NewProvisioningKey(Body):
    """A key to be made: of an establishment, or of an organisation whose devices are placed later."""

    name: Name
    organization_id: UUID | None = None
    establishment_id: UUID | None = None
    profile_id: UUID | None = None
    makes_devices: bool = True
    devices_max: DevicesMax = desk.DEVICES_MAX
    expires_at: Moment | None = None


class ProvisioningKeyChange(Body):
    """What changes of it. It stays where it is."""

    name: Name | UnsetType = UNSET
    profile_id: UUID | UnsetType | None = UNSET
    makes_devices: bool | UnsetType = UNSET
    devices_max: DevicesMax | UnsetType = UNSET
    is_enabled: bool | UnsetType = UNSET
    expires_at: Moment | UnsetType | None = UNSET


@get("/provisioning-keys")
async def list_provisioning_keys(
    acting: Acts,
    page: Paged,
    organization_id: FromQuery[UUID | None] = None,
    establishment_id: FromQuery[UUID | None] = None,
    profile_id: FromQuery[UUID | None] = None,
    is_enabled: FromQuery[bool | None] = None,
) -> Page[ProvisioningKey]:
    """List the provisioning keys that you may see, without their secrets."""
    filters = {
        "organization_id": organization_id,
        "establishment_id": establishment_id,
        "profile_id": profile_id,
        "is_enabled": is_enabled,
    }
    return await acting.read(lambda work: desk.provisioning_keys(work, filtered(page, **filters)))


@post("/provisioning-keys")
async def create_provisioning_key(once: Acts, data: JSONBody[NewProvisioningKey]) -> IssuedProvisioningKey:
    """Make a key with which devices get in by themselves. Its secret is shown this once: only its hash is kept.

    A device that comes with it and a serial number gets a token if it is registered and has none; if it is not registered, it is,
    unless `makes_devices` is false. You need the permissions to register devices there and to give them tokens.
    """
    command = desk.CreateProvisioningKey(**given(data))
    return await once.run(lambda work: desk.create_provisioning_key(work, command), status=201)


@get("/provisioning-keys/{key_id:uuid}")
async def get_provisioning_key(acting: Acts, key_id: FromPath[UUID]) -> ProvisioningKey:
    """Read a provisioning key, without its secret."""
    return await acting.read(lambda work: desk.provisioning_key(work, key_id))


@patch("/provisioning-keys/{key_id:uuid}")
async def change_provisioning_key(
    acting: Acts, key_id: FromPath[UUID], data: JSONBody[ProvisioningKeyChange], version: Version
) -> ProvisioningKey:
    """Change a provisioning key, or take it out of use and back. Devices that came with it stay what they are."""
    command = desk.ChangeProvisioningKey(**given(data))
    return await acting.run(lambda work: desk.change_provisioning_key(work, key_id, command, version=version))


@delete("/provisioning-keys/{key_id:uuid}")
async def delete_provisioning_key(acting: Acts, key_id: FromPath[UUID]) -> None:
    """Delete a provisioning key. Devices that came with it stay what they are."""
    await acting.run(lambda work: desk.delete_provisioning_key(work, key_id))


router = Router(
    path="/",
    tags=["devices"],
    route_handlers=[
        list_provisioning_keys,
        create_provisioning_key,
        get_provisioning_key,
        change_provisioning_key,
        delete_provisioning_key,
    ],
)
