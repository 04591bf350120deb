"""A `Reach` as the WHERE clause of a query: what the policy decided is what the database returns."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from hse.domain.policy import Reach


class Scope(Protocol):
    """How the rows of a table lie within a reach."""

    def within(self, reach: Reach) -> sa.ColumnElement[bool]:
        """The condition that a row within the reach meets."""


UUIDS = ARRAY(sa.Uuid())


def one_of(column: sa.ColumnElement[Any], ids: Iterable[UUID | None]) -> sa.ColumnElement[bool]:
    """`column = any(ids)`: one text of the statement, however many there are."""
    known = sorted(one for one in ids if one is not None)
    return column == sa.any_(sa.literal(known, UUIDS))


@dataclass(frozen=True, slots=True)
class SiteScope:
    """Of what stands at an establishment, or in an organisation that is reached whole."""

    organization_id: sa.Column[Any]
    establishment_id: sa.Column[Any]

    def within(self, reach: Reach) -> sa.ColumnElement[bool]:
        """The condition that a row within the reach meets."""
        if reach.is_everything:
            return sa.true()
        return sa.or_(
            one_of(self.organization_id, reach.organization_ids),
            one_of(self.establishment_id, reach.establishment_ids),
        )


@dataclass(frozen=True, slots=True)
class OwnerScope:
    """Of what belongs to a partner company, or to an organisation itself."""

    partner_company_id: sa.Column[Any]
    organization_id: sa.Column[Any] | None = None

    def within(self, reach: Reach) -> sa.ColumnElement[bool]:
        """The condition that a row within the reach meets."""
        if reach.is_everything:
            return sa.true()
        clauses = [one_of(self.partner_company_id, [reach.partner_company_id])]
        if self.organization_id is not None:
            clauses.append(one_of(self.organization_id, {*reach.organization_ids, reach.own_organization_id}))
        return sa.or_(*clauses)
