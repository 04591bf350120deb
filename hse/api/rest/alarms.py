"""Alarms of devices."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Router, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, QueryParameter, SkipValidation

from hse.api.acting import Acts
from hse.api.paging import Paged, filtered
from hse.domain.alerts import queries
from hse.domain.alerts.model import Alarm, AlarmState, Severity
from hse.domain.paging import Page

# `state` is the framework's own word.
InState = Annotated[AlarmState | None, QueryParameter(name="state", description="Only those that are in it.")]


async def provide_filters(
    organization_id: FromQuery[UUID | None] = None,
    establishment_id: FromQuery[UUID | None] = None,
    device_id: FromQuery[UUID | None] = None,
    type: FromQuery[str | None] = None,  # noqa: A002 (the parameter's name)
    severity: FromQuery[Severity | None] = None,
    is_in: InState = None,
) -> dict[str, Any]:
    """Which alarms a list is to show."""
    return {
        "organization_id": organization_id,
        "establishment_id": establishment_id,
        "device_id": device_id,
        "type": type,
        "severity": severity,
        "state": is_in,
    }


@get("/alarms", dependencies={"filters": Provide(provide_filters)})
async def list_alarms(
    acting: Acts, page: Paged, filters: NamedDependency[SkipValidation[dict[str, Any]]]
) -> Page[Alarm]:
    """List the alarms that you may see, the newest first; `q` looks in type and message."""
    return await acting.read(lambda work: queries.alarms(work, filtered(page, **filters)))


@get("/alarms/{alarm_id:uuid}")
async def get_alarm(acting: Acts, alarm_id: FromPath[UUID]) -> Alarm:
    """Read an alarm."""
    return await acting.read(lambda work: queries.alarm(work, alarm_id))


router = Router(path="/", tags=["alarms"], route_handlers=[list_alarms, get_alarm])
