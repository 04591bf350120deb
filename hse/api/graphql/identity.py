"""Who people are and what they may do, the keys of their programs, and the audit log."""

import strawberry

from hse.api.graphql.connections import connection, reference, single
from hse.api.graphql.entities import API_KEYS, AUDIT_ENTRIES, ESTABLISHMENTS, ORGANIZATIONS, PARTNER_COMPANIES
from hse.api.graphql.mutations import acts, makes
from hse.api.graphql.types import mirrors
from hse.api.rest import api_keys as api_key_bodies
from hse.domain.identity import api_keys, audit


@mirrors(api_keys.ApiKey)
class ApiKey:
    """A key. It is used more often than an Int can count."""

    use_count: float


@mirrors(api_keys.IssuedApiKey)
class IssuedApiKey:
    """A new key, told this once."""

    api_key: ApiKey


@mirrors(audit.AuditEntry)
class AuditEntry:
    """One change. Its number is more than an Int holds."""

    id: strawberry.ID
    partner_company = reference(PARTNER_COMPANIES, "partner_company_id")
    organization = reference(ORGANIZATIONS, "organization_id")
    establishment = reference(ESTABLISHMENTS, "establishment_id")


@strawberry.type
class IdentityQuery:
    """What may be read of the noun."""

    api_key = single(API_KEYS, api_keys.api_key)
    api_keys = connection(API_KEYS, "Your own, the revoked ones too.")
    audit_entries = connection(AUDIT_ENTRIES, "What was changed within your reach, the newest first.")


@strawberry.type
class IdentityMutation:
    """What may be done to the noun."""

    create_api_key = makes(
        IssuedApiKey,
        api_key_bodies.NewApiKey,
        lambda wanted, context: api_key_bodies.command_of(wanted, context.request_limits),
        api_keys.create_api_key,
    )
    revoke_api_key = acts(api_keys.revoke_api_key)
