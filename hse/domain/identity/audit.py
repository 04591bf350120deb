"""The audit log: who changed what, from where. It is only added to."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from hse.domain.paging import Page, PageQuery
from hse.domain.policy import Reach
from hse.domain.work import Work

# Of people: where they work, establishment by establishment.
ASSIGNED_PLACES = "user.assign_establishments"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One change. `before` and `after` are the thing as it may be shown: they hold no secrets."""

    id: int
    at: datetime
    actor_kind: str
    actor_id: UUID | None
    api_key_id: UUID | None
    address: str | None
    correlation_id: str | None
    action: str
    entity_type: str
    entity_id: str | None
    partner_company_id: UUID | None
    organization_id: UUID | None
    establishment_id: UUID | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


class AuditEntryStore(Protocol):
    """The entries."""

    async def page(self, reach: Reach, query: PageQuery) -> Page[AuditEntry]:
        """A page of the entries about what lies within the reach."""


class AuditWork(Work, Protocol):
    """A transaction that reads the audit log."""

    @property
    def audit_entries(self) -> AuditEntryStore:
        """The entries."""


async def audit_entries(work: AuditWork, query: PageQuery) -> Page[AuditEntry]:
    """A page of the entries, the newest first, with what the actor may see of each. Raises `Forbidden`, `Invalid`."""
    reach = work.actor.require("read_audit")
    page = await work.audit_entries.page(reach, query)
    return replace(page, items=[shown_within(entry, reach) for entry in page.items])


def shown_within(entry: AuditEntry, reach: Reach) -> AuditEntry:
    """The entry, without what lies beyond the reach: other establishments, and a side that tells of somebody else's."""
    if reach.is_everything:
        return entry
    return replace(entry, before=_side(entry, entry.before, reach), after=_side(entry, entry.after, reach))


def _side(entry: AuditEntry, told: Mapping[str, Any] | None, reach: Reach) -> Mapping[str, Any] | None:
    if told is None or _is_of_others(entry, told, reach):
        return None
    if entry.action == ASSIGNED_PLACES:
        return {place: role_id for place, role_id in told.items() if _has_site(reach, entry, place)}
    if "establishment_ids" in told:
        return {**told, "establishment_ids": [one for one in told["establishment_ids"] if _has_site(reach, entry, one)]}
    return told


def _is_of_others(entry: AuditEntry, told: Mapping[str, Any], reach: Reach) -> bool:
    """Whether this side is of another company, organisation or establishment than the entry, and not within reach."""
    partner_company_id, organization_id = told.get("partner_company_id"), told.get("organization_id")
    if partner_company_id not in (None, _text(entry.partner_company_id), _text(reach.partner_company_id)):
        return True
    if organization_id not in (None, _text(entry.organization_id)) and not reach.has_owner(None, UUID(organization_id)):
        return True
    if entry.entity_type == "device_command_group":
        # How many were commanded is told to those who reach all of them.
        return not _has_site(reach, entry, (told.get("target") or {}).get("establishment_id"))
    place = told.get("establishment_id")
    return place not in (None, _text(entry.establishment_id)) and not _has_site(reach, entry, place)


def _has_site(reach: Reach, entry: AuditEntry, place: str | None) -> bool:
    establishment_id = None if place is None else UUID(place)
    return entry.organization_id is not None and reach.has_site(entry.organization_id, establishment_id)


def _text(entity_id: UUID | None) -> str | None:
    return None if entity_id is None else str(entity_id)
