"""What the noun needs of a transaction. Establishments and areas are known here only as places."""

from typing import Protocol
from uuid import UUID

from hse.domain.devices.model import Device, DeviceToken
from hse.domain.work import Finds, Placed, Store, Work


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


class Part(Protocol):
    """An area."""

    @property
    def establishment_id(self) -> UUID:
        """Of which establishment it is a part."""


class DeviceStore(Store[Device], Protocol):
    """The devices."""

    async def has_children(self, device_id: UUID) -> bool:
        """Whether it speaks for others, wherever they stand."""

    async def keep_token(self, before: Device, token: DeviceToken | None) -> Device:
        """Let a device connect with this token and no other; with None, not at all. Raises `Stale`."""


class DevicesWork(Work, Protocol):
    """A transaction with what this noun needs."""

    @property
    def devices(self) -> DeviceStore:
        """The devices."""

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
