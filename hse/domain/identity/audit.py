"""The audit log: who changed what, from where. It is only added to."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from hse.domain.paging import Page, PageQuery
from hse.domain.policy import Reach
from hse.domain.work import Work


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
    """A page of the entries, the newest first. Raises `Forbidden`, `Invalid`."""
    return await work.audit_entries.page(work.actor.require("read_audit"), query)
