"""The audit log in the database."""

from dataclasses import dataclass, fields, replace
from typing import Any

import sqlalchemy as sa

from hse.adapters.postgres.identity_tables import audit_entries
from hse.adapters.postgres.reach import ESTABLISHMENTS, OwnerScope, SiteScope, ids_of
from hse.adapters.postgres.stores import TableStore
from hse.domain.identity.audit import ASSIGNED_PLACES, AuditEntry
from hse.domain.paging import PageQuery
from hse.domain.policy import Reach

# What everybody who belongs to a company or an organisation may know of there, as the stores of these have it, too. All else stands
# at an establishment, or is an organisation's as a whole: then it is for those only who reach the organisation whole.
OWNED = (
    "api_key",
    "device_command_group",  # of which is shown what lies within the reach
    "device_profile",
    "invitation",
    "organization",
    "partner_company",
    "role",
    "user",
)


@dataclass(frozen=True, slots=True)
class _ScopeOfEntry:
    """What happened at an establishment is for those who reach that; what is owned, for those who reach its owner.

    Where somebody works is told to those who reach a place at which that changed.
    """

    owner: OwnerScope
    site: SiteScope

    def within(self, reach: Reach) -> sa.ColumnElement[bool]:
        """The condition that an entry within the reach meets."""
        entry = audit_entries.c
        is_of_owner = sa.and_(
            entry.establishment_id.is_(None), entry.entity_type.in_(OWNED), entry.action != ASSIGNED_PLACES
        )
        return sa.or_(
            sa.and_(is_of_owner, self.owner.within(reach)),
            self.site.within(reach),
            sa.and_(entry.action == ASSIGNED_PLACES, _places_changed(reach)),
        )


def _places_changed(reach: Reach) -> sa.ColumnElement[bool]:
    if reach.is_everything:
        return sa.true()
    places = sa.func.unnest(ids_of(reach, ESTABLISHMENTS)).table_valued(sa.column("id", sa.Uuid), name="places")
    place = sa.cast(places.render_derived().c.id, sa.Text)
    before, after = (column[place] for column in (audit_entries.c.before, audit_entries.c.after))
    return sa.exists().where(before.is_distinct_from(after))


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
