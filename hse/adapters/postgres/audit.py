"""The audit log in the database."""

from dataclasses import dataclass, fields, replace
from typing import Any

import sqlalchemy as sa

from hse.adapters.postgres.identity_tables import audit_entries
from hse.adapters.postgres.reach import OwnerScope, SiteScope
from hse.adapters.postgres.stores import TableStore
from hse.domain.identity.audit import AuditEntry
from hse.domain.paging import PageQuery
from hse.domain.policy import Reach


@dataclass(frozen=True, slots=True)
class _ScopeOfEntry:
    """What happened at an establishment is for those who reach that; all else for those who reach whom it belongs to."""

    owner: OwnerScope
    site: SiteScope

    def within(self, reach: Reach) -> sa.ColumnElement[bool]:
        is_of_no_site = self.site.establishment_id.is_(None)
        return sa.or_(sa.and_(is_of_no_site, self.owner.within(reach)), self.site.within(reach))


class AuditEntries(TableStore[AuditEntry]):
    """The entries."""

    entity = "audit_entry"
    table = audit_entries
    view = AuditEntry
    scope = _ScopeOfEntry(
        OwnerScope(audit_entries.c.partner_company_id, audit_entries.c.organization_id),
        SiteScope(audit_entries.c.organization_id, audit_entries.c.establishment_id),
    )
    sorts = ("id",)
    default_sort = "-id"
    searched = ("action",)

    @classmethod
    def columns(cls) -> list[Any]:
        """The columns of the view; an address without its network mask."""
        address = sa.func.host(audit_entries.c.address).label("address")
        return [address if item.name == "address" else cls.table.c[item.name] for item in fields(cls.view)]

    def _conditions(self, query: PageQuery) -> list[sa.ColumnElement[bool]]:
        filters = dict(query.filters)
        at_from, at_until = filters.pop("from", None), filters.pop("until", None)
        conditions = super()._conditions(replace(query, filters=filters))
        if at_from is not None:
            conditions.append(audit_entries.c.at >= at_from)
        if at_until is not None:
            conditions.append(audit_entries.c.at < at_until)
        return conditions
