"""The views of the noun: actions, roles, people and where they work."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from hse.domain.policy import Level, Reach, level_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that can be allowed. `exclusive_to` is the hierarchy of the only level, beside root, that may hold it."""

    name: str
    resource: str
    action: str
    category: str
    description: str
    exclusive_to: int | None
    hierarchy_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What its holders may do. A custom role belongs to whom its binding names; without one it is root's, for everybody."""

    id: UUID
    name: str
    description: str
    type: str
    hierarchy: int
    partner_company_id: UUID | None
    organization_id: UUID | None
    establishment_id: UUID | None
    actions: list[str]
    created_by: UUID | None
    version: int
    created_at: datetime
    updated_at: datetime

    @property
    def level(self) -> Level:
        """Its level."""
        return level_of(self.hierarchy)

    @property
    def is_unbound(self) -> bool:
        """Whether it belongs to nobody in particular."""
        return self.partner_company_id is None and self.organization_id is None

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it. Who may see it is wider: everybody sees the unbound ones."""
        if self.organization_id is not None and self.establishment_id is not None:
            return reach.has_site(self.organization_id, self.establishment_id)
        return reach.has_owner(self.partner_company_id, self.organization_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person with an account. He belongs to a partner company, to an organisation, or, as root, to neither."""

    id: UUID
    email: str
    first_name: str
    last_name: str
    role_id: UUID
    hierarchy: int
    partner_company_id: UUID | None
    organization_id: UUID | None
    has_all_establishments: bool
    is_active: bool
    email_verified: bool
    onboarded_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers him."""
        return reach.has_owner(self.partner_company_id, self.organization_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Where a person works; `role_id` is the role that he has there in place of his own."""

    user_id: UUID
    establishment_id: UUID
    role_id: UUID | None
    assigned_by: UUID | None
    assigned_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Whom a person or a role belongs to: a partner company, an organisation, or neither."""

    partner_company_id: UUID | None = None
    organization_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """An invitation to an account. `role_id` is None when the role was deleted meanwhile; nobody can accept it then."""

    id: UUID
    email: str
    first_name: str
    last_name: str
    role_id: UUID | None
    partner_company_id: UUID | None
    organization_id: UUID | None
    establishment_ids: list[UUID]
    has_all_establishments: bool
    status: str
    invited_by: UUID | None
    sent_count: int
    expires_at: datetime
    answered_at: datetime | None
    user_id: UUID | None
    version: int
    created_at: datetime
    updated_at: datetime

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it."""
        return reach.has_owner(self.partner_company_id, self.organization_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenInvitation:
    """A pending invitation as the holder of its token finds it. When it is void it can only be rejected."""

    id: UUID
    email: str
    first_name: str
    last_name: str
    role_id: UUID | None
    role_name: str | None
    partner_company_id: UUID | None
    organization_id: UUID | None
    tenant_name: str | None
    establishment_ids: list[UUID]
    has_all_establishments: bool
    invited_by_name: str | None
    expires_at: datetime
    is_void: bool
