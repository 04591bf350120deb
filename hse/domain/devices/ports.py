"""What the noun needs of a transaction. Establishments and areas are known here only as places."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Protocol
from uuid import UUID

from hse.domain.devices.device_commands import DeviceCommand, DeviceCommandGroup
from hse.domain.devices.model import Device, DeviceToken
from hse.domain.devices.profile_views import DeviceProfile
from hse.domain.paging import Page, PageQuery
from hse.domain.policy import Reach
from hse.domain.work import Finds, Placed, Store, Work

SEE_PROFILES: Final = "read_device_profile"


class Owner(Protocol):
    """An organisation."""

    @property
    def id(self) -> UUID:
        """Its id."""


class Site(Placed, Protocol):
    """An establishment."""

    @property
    def id(self) -> UUID:
        """Its id."""

    @property
    def organization_id(self) -> UUID:
        """Whose it is."""


class Part(Placed, Protocol):
    """An area."""

    @property
    def id(self) -> UUID:
        """Its id."""

    @property
    def organization_id(self) -> UUID:
        """Whose it is."""

    @property
    def establishment_id(self) -> UUID:
        """Of which establishment it is a part."""


class DeviceStore(Store[Device], Protocol):
    """The devices."""

    async def has_children(self, device_id: UUID) -> bool:
        """Whether it speaks for others, wherever they stand."""

    async def keep_token(self, before: Device, token: DeviceToken | None) -> Device:
        """Let a device connect with this token and no other; with None, not at all. Raises `Stale`."""


class DeviceProfileStore(Store[DeviceProfile], Protocol):
    """The profiles of devices."""

    async def num_devices(self, profile_id: UUID) -> int:
        """How many devices have it, as far as this transaction sees them; for the rest the foreign key stands in."""


class DevicesWork(Work, Protocol):
    """A transaction with what this noun needs."""

    @property
    def devices(self) -> DeviceStore:
        """The devices."""

    @property
    def device_profiles(self) -> DeviceProfileStore:
        """The profiles of devices."""

    @property
    def organizations(self) -> Finds[Owner]:
        """The organisations."""

    @property
    def establishments(self) -> Finds[Site]:
        """The establishments."""

    @property
    def areas(self) -> Finds[Part]:
        """The areas."""

    def new_device_token(self) -> DeviceToken:
        """A token that nobody can guess."""


class Target(Protocol):
    """Which devices a command goes to; None is no condition. An area counts with all that lies in it."""

    @property
    def organization_id(self) -> UUID | None:
        """Whose."""

    @property
    def establishment_id(self) -> UUID | None:
        """Where."""

    @property
    def area_id(self) -> UUID | None:
        """In which part of it."""

    @property
    def device_type(self) -> str | None:
        """Of what type."""

    @property
    def protocol(self) -> str | None:
        """How they are connected."""

    @property
    def manufacturer(self) -> str | None:
        """By whom."""

    @property
    def model(self) -> str | None:
        """Of what model."""


class DeviceCommandStore(Finds[DeviceCommand], Protocol):
    """The commands to devices. What is written to the audit log about them is without their params: one may be a door's code."""

    async def page(self, reach: Reach, query: PageQuery) -> Page[DeviceCommand]:
        """A page of what is within the reach. Raises `Invalid`."""

    async def add(self, values: Mapping[str, Any]) -> DeviceCommand:
        """Queue a command."""

    async def add_to_many(self, device_ids: Sequence[UUID], values: Mapping[str, Any]) -> None:
        """Queue the same command for each of these devices; their group tells the audit log."""

    async def devices_of(self, target: Target, see: Reach, act: Reach, *, limit: int) -> list[UUID]:
        """The enabled devices with a connection of their own that fit the target and lie within both reaches."""

    async def full_queues(self, device_ids: Sequence[UUID], commands_max: int) -> Collection[UUID]:
        """Those of the devices that have so many unfinished commands."""

    async def cancel(self, before: DeviceCommand) -> DeviceCommand:
        """Take it back. Raises `CommandNotWaiting`."""

    async def cancel_of_group(self, group: DeviceCommandGroup, reach: Reach) -> int:
        """Take back what waits of a group and is within the reach; returns how many."""


class DeviceCommandGroupStore(Finds[DeviceCommandGroup], Protocol):
    """The commands to many devices. A group is within a reach when one of its commands is, and tells of those that are."""

    async def page(self, reach: Reach, query: PageQuery) -> Page[DeviceCommandGroup]:
        """A page of what is within the reach. Raises `Invalid`."""

    async def add(self, values: Mapping[str, Any]) -> DeviceCommandGroup:
        """Keep a group, after its commands."""


class CommandsWork(DevicesWork, Protocol):
    """A transaction with what commanding needs beside the devices."""

    @property
    def device_commands(self) -> DeviceCommandStore:
        """The commands to devices."""

    @property
    def device_command_groups(self) -> DeviceCommandGroupStore:
        """The commands to many devices."""
