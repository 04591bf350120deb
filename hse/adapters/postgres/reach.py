"""A `Reach` as the WHERE clause of a query: what the policy decided is what the database returns.

A statement that is kept for later requests is made for an `AnyReach`: in the place of ids it has parameters with names, which each
request gives the ids of its own reach (`parameters_of`). Every other statement holds its ids itself, those of several reaches, too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
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


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyReach(Reach):
    """Stands for every reach that is not everything. By itself it is nowhere.

    A statement that is made for several has names for each: one must never get the ids of another.
    """

    prefix: str = "reach"


ANY_REACH = AnyReach()

ORGANIZATIONS, ESTABLISHMENTS, PARTNERS, OWNERS = "organizations", "establishments", "partners", "owners"


@lru_cache(2000)
def parameters_of(reach: Reach, stand_in: AnyReach = ANY_REACH) -> Mapping[str, list[UUID]]:
    """The parameters of the conditions that were made of `stand_in`."""
    return {f"{stand_in.prefix}_{name}": ids for name, ids in _ids_of(reach).items()}


@lru_cache(2000)
def _ids_of(reach: Reach) -> Mapping[str, list[UUID]]:
    return {
        ORGANIZATIONS: _sorted(reach.organization_ids),
        ESTABLISHMENTS: _sorted(reach.establishment_ids),
        PARTNERS: _sorted([reach.partner_company_id]),
        OWNERS: _sorted({*reach.organization_ids, reach.own_organization_id}),
    }


def one_of(column: sa.ColumnElement[Any], ids: Iterable[UUID | None]) -> sa.ColumnElement[bool]:
    """`column = any(ids)`: one text of the statement, however many there are."""
    return column == sa.any_(sa.literal(_sorted(ids), UUIDS))


def ids_of(reach: Reach, name: str) -> sa.ColumnElement[Any]:
    """The ids of one of the parameters, as an array."""
    if isinstance(reach, AnyReach):
        return sa.bindparam(f"{reach.prefix}_{name}", type_=UUIDS)
    return sa.literal(_ids_of(reach)[name], UUIDS)


def _one_of_reach(column: sa.ColumnElement[Any], name: str, reach: Reach) -> sa.ColumnElement[bool]:
    return column == sa.any_(ids_of(reach, name))


def _sorted(ids: Iterable[UUID | None]) -> list[UUID]:
    return sorted(one for one in ids if one is not None)


@dataclass(frozen=True, slots=True)
class SiteScope:
    """Of what stands at an establishment, or in an organisation that is reached whole."""

    organization_id: sa.Column[Any]
    establishment_id: sa.ColumnElement[Any]

    def within(self, reach: Reach) -> sa.ColumnElement[bool]:
        """The condition that a row within the reach meets."""
        if reach.is_everything:
            return sa.true()
        return sa.or_(
            _one_of_reach(self.organization_id, ORGANIZATIONS, reach),
            _one_of_reach(self.establishment_id, ESTABLISHMENTS, reach),
        )


@dataclass(frozen=True, slots=True)
class WholeScope:
    """Of what is an organisation's as a whole, which is reached by who reaches the organisation whole."""

    organization_id: sa.Column[Any]

    def within(self, reach: Reach) -> sa.ColumnElement[bool]:
        """The condition that a row within the reach meets."""
        return sa.true() if reach.is_everything else _one_of_reach(self.organization_id, ORGANIZATIONS, reach)


@dataclass(frozen=True, slots=True)
class OwnScope:
    """Of what is an organisation's own, which is reached by everybody who belongs to it, too."""

    organization_id: sa.Column[Any]

    def within(self, reach: Reach) -> sa.ColumnElement[bool]:
        """The condition that a row within the reach meets."""
        return sa.true() if reach.is_everything else _one_of_reach(self.organization_id, OWNERS, reach)


@dataclass(frozen=True, slots=True)
class OwnerScope:
    """Of what belongs to a partner company, or to an organisation itself."""

    partner_company_id: sa.Column[Any]
    organization_id: sa.Column[Any] | None = None

    def within(self, reach: Reach) -> sa.ColumnElement[bool]:
        """The condition that a row within the reach meets."""
        if reach.is_everything:
            return sa.true()
        clauses = [_one_of_reach(self.partner_company_id, PARTNERS, reach)]
        if self.organization_id is not None:
            clauses.append(_one_of_reach(self.organization_id, OWNERS, reach))
        return sa.or_(*clauses)
