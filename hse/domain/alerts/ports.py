"""What the noun needs of a transaction."""

from typing import Protocol

from hse.domain.alerts.model import Alarm
from hse.domain.paging import Page, PageQuery
from hse.domain.policy import Reach
from hse.domain.work import Finds, Work


class AlarmStore(Finds[Alarm], Protocol):
    """The alarms of devices."""

    async def page(self, reach: Reach, query: PageQuery) -> Page[Alarm]:
        """A page of those within the reach. Raises `Invalid`."""


class AlertsWork(Work, Protocol):
    """A transaction with what this noun needs."""

    @property
    def alarms(self) -> AlarmStore:
        """The alarms of devices."""
