"""The audit log."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from litestar import Router, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery, QueryParameter, SkipValidation

from hse.api.acting import Acts
from hse.api.paging import Paged, filtered
from hse.domain.errors import Invalid
from hse.domain.identity import audit
from hse.domain.identity.audit import AuditEntry
from hse.domain.paging import Page

Entity = Annotated[str | None, QueryParameter(description="What was changed, such as `organization`.", max_length=100)]
EntityId = Annotated[str | None, QueryParameter(description="Which one it was.", max_length=100)]
ActionName = Annotated[str | None, QueryParameter(description="What was done, such as `area.update`.", max_length=100)]
From = Annotated[datetime | None, QueryParameter(name="from", description="Not before this time.")]
Until = Annotated[datetime | None, QueryParameter(name="to", description="Before this time.")]


async def provide_filters(
    actor_id: FromQuery[UUID | None] = None,
    entity_type: Entity = None,
    entity_id: EntityId = None,
    action: ActionName = None,
    at_from: From = None,
    at_until: Until = None,
) -> dict[str, Any]:
    """Which entries are asked for. Raises `Invalid`."""
    for name, moment in (("from", at_from), ("to", at_until)):
        if moment is not None and moment.tzinfo is None:
            raise Invalid(name, "name the time zone, such as 2030-01-01T00:00:00Z")
    wanted = {"actor_id": actor_id, "entity_type": entity_type, "entity_id": entity_id, "action": action}
    return {**wanted, "from": at_from, "until": at_until}


@get("/audit-entries", dependencies={"filters": Provide(provide_filters)})
async def list_audit_entries(
    acting: Acts, page: Paged, filters: NamedDependency[SkipValidation[dict[str, Any]]]
) -> Page[AuditEntry]:
    """List what was changed within your reach, the newest first."""
    return await acting.read(lambda work: audit.audit_entries(work, filtered(page, **filters)))


router = Router(path="/", tags=["audit"], route_handlers=[list_audit_entries])
