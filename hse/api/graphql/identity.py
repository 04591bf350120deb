"""Who people are and what they may do, the keys of their programs, and the audit log."""

from typing import Any
from uuid import UUID

import strawberry

from hse.adapters.postgres.work import PostgresWork
from hse.api.bodies import given
from hse.api.graphql.connections import (
    answer,
    connection,
    connection_of,
    list_of,
    node_of,
    own,
    reference,
    single,
    whole,
)
from hse.api.graphql.entities import (
    API_KEYS,
    AUDIT_ENTRIES,
    ESTABLISHMENTS,
    INVITATIONS,
    ORGANIZATIONS,
    PARTNER_COMPANIES,
    ROLES,
    SESSIONS,
    USERS,
)
from hse.api.graphql.mutations import (
    acts,
    acts_once,
    acts_once_oneself,
    acts_with,
    changes,
    changes_own,
    changes_within,
    makes,
)
from hse.api.graphql.types import mirrors
from hse.api.rest import api_keys as api_key_bodies
from hse.api.rest import invitations as invitation_bodies
from hse.api.rest import me as me_bodies
from hse.api.rest import roles as role_bodies
from hse.api.rest import users as user_bodies
from hse.domain.identity import (
    api_keys,
    audit,
    invitations,
    model,
    onboarding,
    profile,
    roles,
    session_control,
    users,
)


@mirrors(model.Action)
class Action:
    """What can be allowed."""


@mirrors(model.Role)
class Role:
    """What its holders may do."""

    partner_company = reference(PARTNER_COMPANIES, "partner_company_id")
    organization = reference(ORGANIZATIONS, "organization_id")
    establishment = reference(ESTABLISHMENTS, "establishment_id")
    users = list_of(USERS, "role_id")


@mirrors(model.User)
class User:
    """A person. `establishments` are those that he is assigned to."""

    role = reference(ROLES, "role_id")
    partner_company = reference(PARTNER_COMPANIES, "partner_company_id")
    organization = reference(ORGANIZATIONS, "organization_id")
    establishments = list_of(ESTABLISHMENTS, "user_id")


@mirrors(model.Assignment)
class Assignment:
    """Where a person works."""

    user = reference(USERS, "user_id")
    establishment = reference(ESTABLISHMENTS, "establishment_id")
    role = reference(ROLES, "role_id")


@mirrors(model.Invitation)
class Invitation:
    """An invitation to an account."""

    role = reference(ROLES, "role_id")
    partner_company = reference(PARTNER_COMPANIES, "partner_company_id")
    organization = reference(ORGANIZATIONS, "organization_id")


@mirrors(api_keys.ApiKey)
class ApiKey:
    """A key. It is used more often than an Int can count."""

    use_count: float
    user = reference(USERS, "user_id")


@mirrors(api_keys.IssuedApiKey)
class IssuedApiKey:
    """A new key, told this once."""

    api_key: ApiKey


@mirrors(session_control.Session)
class Session:
    """Somebody who is signed in."""

    user = reference(USERS, "user_id")


@mirrors(profile.Me)
class Me:
    """Who acts, and what he may do."""


@mirrors(onboarding.Step)
class Step:
    """One of the first steps."""


@mirrors(onboarding.Onboarding)
class Onboarding:
    """The first steps."""

    steps: list[Step]


@mirrors(audit.AuditEntry)
class AuditEntry:
    """One change. Its number is more than an Int holds."""

    id: strawberry.ID
    actor = reference(USERS, "actor_id")
    partner_company = reference(PARTNER_COMPANIES, "partner_company_id")
    organization = reference(ORGANIZATIONS, "organization_id")
    establishment = reference(ESTABLISHMENTS, "establishment_id")


async def _user_establishments(work: PostgresWork, user_id: UUID) -> list[model.Assignment]:
    return (await users.user_establishments(work, user_id)).items


def _values(**values: Any) -> dict[str, Any]:
    """The values of a body as commands hold them: lists are tuples there."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


@strawberry.type
class IdentityQuery:
    """What may be read of the noun."""

    me = own(profile.me, Me, "Who you are, and what you may do.")
    onboarding = own(onboarding.onboarding, Onboarding, "Which first steps are left to you, and where each is done.")
    sessions = connection(SESSIONS, "Your own.")
    user_sessions = connection_of(SESSIONS, session_control.sessions_of, "Where somebody is signed in.")
    actions = whole(roles.actions, Action, "Everything that can be allowed.")
    role = single(ROLES, roles.role)
    roles = connection(ROLES)
    user = single(USERS, users.user)
    users = connection(USERS)
    user_establishments = answer(
        _user_establishments,
        list[Assignment],
        "Where a person works, and as what, of the establishments that you may see.",
    )
    invitation = single(INVITATIONS, invitations.invitation)
    invitations = connection(INVITATIONS)
    api_key = single(API_KEYS, api_keys.api_key)
    user_api_keys = connection_of(API_KEYS, api_keys.api_keys_of, "The keys of somebody whose keys you look after.")
    api_keys = connection(API_KEYS, "Your own, the revoked ones too.")
    audit_entries = connection(AUDIT_ENTRIES, "What was changed within your reach, the newest first.")


@strawberry.type
class IdentityMutation:
    """What may be done to the noun."""

    change_me = changes_own(Me, me_bodies.ProfileChange, profile.ChangeProfile, profile.change_profile)
    complete_onboarding = acts_once_oneself(onboarding.complete_onboarding, Onboarding)
    end_session = acts(session_control.end_session)
    end_user_sessions = acts(session_control.end_sessions_of)
    create_role = makes(
        node_of(ROLES),
        role_bodies.NewRole,
        lambda wanted, _: roles.CreateRole(**_values(**given(wanted))),
        roles.create_role,
    )
    change_role = changes(
        ROLES,
        role_bodies.RoleChange,
        lambda **values: roles.ChangeRole(**_values(**values)),
        roles.change_role,
    )
    delete_role = acts(roles.delete_role)
    change_user = changes(USERS, user_bodies.UserChange, users.ChangeUser, users.change_user)
    delete_user = acts(users.delete_user)
    assign_role = changes(USERS, user_bodies.NewRoleOfUser, users.AssignRole, users.assign_role)
    assign_establishments = acts_with(
        list[Assignment],
        user_bodies.WorkPlaces,
        lambda wanted: [users.WorkAt(**given(one)) for one in wanted.establishments],
        users.assign_establishments,
    )
    create_invitation = makes(
        node_of(INVITATIONS),
        invitation_bodies.NewInvitation,
        lambda wanted, _: invitations.Invite(**_values(**given(wanted))),
        invitations.invite,
    )
    resend_invitation = acts_once(invitations.resend, node_of(INVITATIONS))
    revoke_invitation = acts_once(invitations.revoke, node_of(INVITATIONS))
    create_api_key = makes(
        IssuedApiKey,
        api_key_bodies.NewApiKey,
        lambda wanted, context: api_key_bodies.command_of(wanted, context.request_limits),
        api_keys.create_api_key,
    )
    change_api_key = changes_within(
        API_KEYS,
        api_key_bodies.ApiKeyChange,
        lambda wanted, context: api_key_bodies.change_of(wanted, context.request_limits),
        api_keys.change_api_key,
    )
    revoke_api_key = acts(api_keys.revoke_api_key)
