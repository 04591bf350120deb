"""Provisioning keys: with one, devices get in by themselves that nobody registered by hand, or that were registered without token.

A key belongs to a place, an organisation or one of its establishments, and its devices come to be there. Its text is burned into a
series of devices, so whoever opens one of them has it. What it is worth is therefore bounded: by a number of devices, by a time, by
a switch; and it never gives a token to a device that has one, which would be to take that device over.

What becomes of a device that comes with a key is decided by the database (`hse_provision_device`), in one transaction with the
count: the ingest core asks it, and the control plane need not be there.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

from hse.domain.devices.device_profiles import check_profile
from hse.domain.devices.model import checked_name
from hse.domain.devices.ports import DevicesWork
from hse.domain.errors import Forbidden, Invalid
from hse.domain.paging import Page, PageQuery
from hse.domain.policy import Reach
from hse.domain.work import UNCHANGED, Store, Unchanged, changes_of, seen, values_of, within_act

SEE_KEYS: Final = "read_provisioning_key"
MANAGE_KEYS: Final = "manage_provisioning_key"
# What a key does for its devices, whoever makes one may do himself.
GIVEN_ON: Final = (MANAGE_KEYS, "create_device", "manage_device_token")
DEVICES_MAX: Final = 1000
DEVICES_MAX_MAX: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisioningKey:
    """A key. `key` is its public half, which devices send with the secret one.

    `makes_devices`: a device with a serial number that is not known is registered; else only what is registered gets a token.
    `num_devices` of `devices_max` have come with it.
    """

    id: UUID
    organization_id: UUID
    establishment_id: UUID | None
    profile_id: UUID | None
    name: str
    key: str
    makes_devices: bool
    devices_max: int
    num_devices: int
    is_enabled: bool
    expires_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it."""
        return reach.has_site(self.organization_id, self.establishment_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedProvisioningKey:
    """Both halves of a key, the secret one told this once."""

    id: UUID
    key: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateProvisioningKey:
    """A key of an establishment, or of an organisation whose devices are placed later."""

    name: str
    organization_id: UUID | None = None
    establishment_id: UUID | None = None
    profile_id: UUID | None = None
    makes_devices: bool = True
    devices_max: int = DEVICES_MAX
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeProvisioningKey:
    """What changes of a key. It stays where it is."""

    name: str | Unchanged = UNCHANGED
    profile_id: UUID | Unchanged | None = UNCHANGED
    makes_devices: bool | Unchanged = UNCHANGED
    devices_max: int | Unchanged = UNCHANGED
    is_enabled: bool | Unchanged = UNCHANGED
    expires_at: datetime | Unchanged | None = UNCHANGED


class ProvisioningKeyStore(Store[ProvisioningKey], Protocol):
    """The keys. The secret goes in as a hash and never comes out."""

    async def issue(self, values: dict[str, Any]) -> IssuedProvisioningKey:
        """Add a key with new halves. Raises `Taken`, `Invalid`."""


class ProvisioningWork(DevicesWork, Protocol):
    """A transaction with what is needed here."""

    @property
    def provisioning_keys(self) -> ProvisioningKeyStore:
        """The keys."""


async def provisioning_keys(work: ProvisioningWork, query: PageQuery) -> Page[ProvisioningKey]:
    """A page of the keys. Raises `Forbidden`, `Invalid`."""
    return await work.provisioning_keys.page(work.actor.require(SEE_KEYS), query)


async def provisioning_key(work: ProvisioningWork, key_id: UUID) -> ProvisioningKey:
    """One key. Raises `Forbidden`, `NotFound`."""
    return await seen(work.provisioning_keys, work.actor.require(SEE_KEYS), key_id)


async def create_provisioning_key(work: ProvisioningWork, command: CreateProvisioningKey) -> IssuedProvisioningKey:
    """Make a key; its secret is told this once. Raises `NotFound`, `Forbidden`, `Invalid`, `InvalidDeviceName`, `Taken`."""
    organization_id = await _organization_of_new(work, command)
    _check_gives(work, organization_id, command.establishment_id)
    values = values_of(command)
    _check_values(work, values)
    await check_profile(work, organization_id, command.profile_id)
    return await work.provisioning_keys.issue({**values, "organization_id": organization_id})


async def change_provisioning_key(
    work: ProvisioningWork, key_id: UUID, command: ChangeProvisioningKey, *, version: int | None = None
) -> ProvisioningKey:
    """Change a key, or take it out of use and back. Raises `NotFound`, `Forbidden`, `Invalid`, `InvalidDeviceName`, `Stale`."""
    before = await within_act(work, work.provisioning_keys, key_id, see=SEE_KEYS, act=MANAGE_KEYS)
    changes = changes_of(command)
    # To take it out of use needs no more than to manage it.
    if changes != {"is_enabled": False}:
        _check_gives(work, before.organization_id, before.establishment_id)
    _check_values(work, changes)
    if changes.get("profile_id", before.profile_id) != before.profile_id:
        await check_profile(work, before.organization_id, changes["profile_id"])
    return await work.provisioning_keys.change(before, changes, version=version)


async def delete_provisioning_key(work: ProvisioningWork, key_id: UUID) -> None:
    """Delete a key; the devices that came with it stay. Raises `NotFound`, `Forbidden`."""
    before = await within_act(work, work.provisioning_keys, key_id, see=SEE_KEYS, act=MANAGE_KEYS)
    await work.provisioning_keys.remove(before)


async def _organization_of_new(work: ProvisioningWork, command: CreateProvisioningKey) -> UUID:
    if command.establishment_id is not None:
        site = await seen(work.establishments, work.actor.reach("read_establishment"), command.establishment_id)
        if command.organization_id not in (None, site.organization_id):
            raise Invalid("organization_id", "is not the organisation of this establishment: leave it out")
        return site.organization_id
    if command.organization_id is None:
        raise Invalid("establishment_id", "say where its devices will stand, or whose they are with organization_id")
    return (await seen(work.organizations, work.actor.reach("read_organization"), command.organization_id)).id


def _check_gives(work: ProvisioningWork, organization_id: UUID, establishment_id: UUID | None) -> None:
    for action in GIVEN_ON:
        if not work.actor.reach(action).has_site(organization_id, establishment_id):
            raise Forbidden(action)


def _check_values(work: ProvisioningWork, values: dict[str, Any]) -> None:
    if "name" in values:
        checked_name(values["name"])
    if not 1 <= values.get("devices_max", 1) <= DEVICES_MAX_MAX:
        raise Invalid("devices_max", f"is a number from 1 to {DEVICES_MAX_MAX}")
    expires_at = values.get("expires_at")
    if expires_at is not None and expires_at <= work.now:
        raise Invalid("expires_at", "is over: name a time to come")
