"""What an import needs: the stores of the nouns that it feeds, looked up and written many rows at a time."""

from collections.abc import Collection
from typing import Any, Protocol, TypeVar
from uuid import UUID

from hse.domain.devices.model import Device
from hse.domain.devices.ports import DeviceStore, DevicesWork
from hse.domain.devices.profile_views import DeviceProfile
from hse.domain.errors import DomainError
from hse.domain.organizations.model import Area, Establishment, Organization
from hse.domain.organizations.ports import AreaStore, EstablishmentStore, OrganizationsWork
from hse.domain.work import Store

C = TypeVar("C")


class Forms(Protocol):
    """Makes commands of values, checked as the body of a single request is."""

    def filled(self, command: type[C], values: dict[str, Any]) -> C:
        """The command with these values. Raises `Invalid`."""


class ImportWork(OrganizationsWork, DevicesWork, Protocol):
    """A transaction that keeps what commands do in memory, row by row, until it is flushed: many rows a statement.

    What a command reads was looked up before, many at once, and is what the rows before it made of it.
    """

    @property
    def organizations(self) -> Store[Organization]:
        """The organisations."""

    @property
    def establishments(self) -> EstablishmentStore:
        """The establishments."""

    @property
    def areas(self) -> AreaStore:
        """The areas."""

    @property
    def devices(self) -> DeviceStore:
        """The devices."""

    async def organizations_called(self, names: Collection[str], ids: Collection[UUID]) -> list[Organization]:
        """Those that the actor may see."""

    async def establishments_called(
        self, organization_ids: Collection[UUID], names: Collection[str]
    ) -> list[Establishment]:
        """Those that the actor may see."""

    async def areas_in(self, establishment_ids: Collection[UUID]) -> list[Area]:
        """Those that the actor may see."""

    async def lock_trees(self, establishment_ids: Collection[UUID]) -> None:
        """See to it that nobody else moves areas of these establishments until the transaction ends."""

    async def devices_called(
        self, organization_ids: Collection[UUID], names: Collection[str], serial_numbers: Collection[str]
    ) -> list[Device]:
        """Those that the actor may see and that have one of the names or of the serial numbers."""

    async def device_profiles_called(
        self, organization_ids: Collection[UUID], names: Collection[str]
    ) -> list[DeviceProfile]:
        """Those that the actor may see."""

    async def give_way(self) -> None:
        """Let others have their turn: an import is long, and one of many things that go on."""

    def begin_row(self, line: int) -> None:
        """What is done from here on belongs to this row."""

    def undo_row(self) -> None:
        """Forget what the row did."""

    async def flush(self) -> list[tuple[int, DomainError]]:
        """Write what the rows did; what the database refuses is undone alone, and answered with its row."""
