"""Who may do what, where. The one place that decides; queries carry its answer as a `Reach` into their SQL.

A user has a role, and the role holds actions. Where they count follows from the level (source plan §6.1.3): root reaches
everything; a partner the organisations of its company; an admin its organisation and the establishments it is assigned to; anybody
else those establishments. At an establishment a user may have another role, which then takes the place of his own. An API
key has its owner's reach and a part of his actions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import ClassVar
from uuid import UUID

from hse.domain.errors import DomainError, ErrorKind, Forbidden

# Says where the actions of root count; a key of root's has its owner's reach, so it need not name it.
SEE_EVERYTHING = "view_all_organizations"
# What is done to accounts and by people: no API key ever holds it, whatever its owner holds.
NOT_FOR_KEYS = frozenset({"create_api_key", "manage_user_sessions", "manage_system_roles"})


class NotForKeys(DomainError):
    """People do this themselves: an API key makes no keys, and changes no passwords, second factors or sessions."""

    kind: ClassVar[ErrorKind] = ErrorKind.FORBIDDEN
    code: ClassVar[str] = "api-keys.refused"

    def __init__(self) -> None:
        super().__init__("this is not done with an API key: sign in")


class Level(IntEnum):
    """The hierarchy of the system roles; custom roles stand below, from `CUSTOM` on. A smaller number stands higher."""

    ROOT = 1
    PARTNER = 2
    ADMIN = 3
    USER = 4
    CUSTOM = 5


def level_of(hierarchy: int) -> Level:
    """The level of a role of this hierarchy."""
    return Level(min(hierarchy, Level.CUSTOM))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Where an actor may do one action. An empty reach is nowhere."""

    is_everything: bool = False
    # Its own record, and whatever belongs to the company itself.
    partner_company_id: UUID | None = None
    # With everything that stands in them.
    organization_ids: frozenset[UUID] = frozenset()
    # Its own record and its people, and not what stands in it.
    own_organization_id: UUID | None = None
    establishment_ids: frozenset[UUID] = frozenset()

    @property
    def is_nowhere(self) -> bool:
        """Whether there is no place at all."""
        return self == NOWHERE

    def has_owner(self, partner_company_id: UUID | None, organization_id: UUID | None) -> bool:
        """Whether what belongs to this company or organisation itself is within reach: its record, people, roles."""
        if self.is_everything:
            return True
        if organization_id is not None and organization_id in (*self.organization_ids, self.own_organization_id):
            return True
        return partner_company_id is not None and partner_company_id == self.partner_company_id

    def has_site(self, organization_id: UUID, establishment_id: UUID | None) -> bool:
        """Whether what stands at this establishment, or in no establishment of this organisation yet, is within reach."""
        return (
            self.is_everything or organization_id in self.organization_ids or establishment_id in self.establishment_ids
        )


NOWHERE = Reach()
EVERYWHERE = Reach(is_everything=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts, as he stands in the database now."""

    user_id: UUID
    email: str
    role_id: UUID
    hierarchy: int
    partner_company_id: UUID | None
    organization_id: UUID | None
    has_all_establishments: bool
    actions: frozenset[str]
    organization_ids: frozenset[UUID]
    # The actions of another role that he has at an establishment; None where it is his own role.
    establishments: Mapping[UUID, frozenset[str] | None] = field(default_factory=dict)
    api_key_id: UUID | None = None
    session_id: UUID | None = None
    # What `reach` answered before; he does not change.
    _reaches: dict[str, Reach] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def level(self) -> Level:
        """His level."""
        return level_of(self.hierarchy)

    @property
    def all_actions(self) -> frozenset[str]:
        """Every action that he may do somewhere."""
        return self.actions.union(*(there for there in self.establishments.values() if there is not None))

    def reach(self, action: str) -> Reach:
        """Where he may do `action`."""
        if (known := self._reaches.get(action)) is not None:
            return known
        reach = self._reaches[action] = self._find_reach(action)
        return reach

    def _find_reach(self, action: str) -> Reach:
        there = frozenset(
            establishment
            for establishment, actions in self.establishments.items()
            if action in (self.actions if actions is None else actions)
        )
        if action not in self.actions:
            return Reach(establishment_ids=there)
        if self.level is Level.ROOT and SEE_EVERYTHING in self.actions:
            return EVERYWHERE
        return Reach(
            partner_company_id=self.partner_company_id if self.level is Level.PARTNER else None,
            organization_ids=self.organization_ids,
            own_organization_id=self.organization_id,
            establishment_ids=there,
        )

    def require(self, action: str) -> Reach:
        """Where he may do `action`; raises `Forbidden` when that is nowhere, whatever it is asked of."""
        reach = self.reach(action)
        if reach.is_nowhere:
            raise Forbidden(action)
        return reach

    def require_person(self) -> None:
        """Raises `NotForKeys` unless a person acts himself."""
        if self.api_key_id is not None:
            raise NotForKeys

    def limited_to(self, actions: frozenset[str], api_key_id: UUID) -> "Actor":
        """The same actor, who acts through a key that holds only these actions."""
        kept = actions - NOT_FOR_KEYS
        there = {
            establishment: None if held is None else held & kept for establishment, held in self.establishments.items()
        }
        own = self.actions & (kept | {SEE_EVERYTHING})
        return replace(self, actions=own, establishments=there, api_key_id=api_key_id)
