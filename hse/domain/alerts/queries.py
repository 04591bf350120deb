"""What may be read of alarms."""

from uuid import UUID

from hse.domain.alerts.model import Alarm
from hse.domain.alerts.ports import AlertsWork
from hse.domain.paging import Page, PageQuery
from hse.domain.work import seen


async def alarms(work: AlertsWork, query: PageQuery) -> Page[Alarm]:
    """A page of the alarms. Raises `Forbidden`, `Invalid`."""
    return await work.alarms.page(work.actor.require("read_alarm"), query)


async def alarm(work: AlertsWork, alarm_id: UUID) -> Alarm:
    """One alarm. Raises `Forbidden`, `NotFound`."""
    return await seen(work.alarms, work.actor.require("read_alarm"), alarm_id)
