"""Who acts: what is asked of the database, and what its answer means."""

import hmac
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from hse.domain.identity.principals import KeyPrincipal, Principal, SessionPrincipal, Unauthenticated
from hse.domain.policy import Actor

ENTER_SESSION = sa.text("select * from hse_enter_session(:session_id)").execution_options(is_kept=True)
ENTER_API_KEY = sa.text(
    "select api_key_id, secret_hash, key_actions, requests_per_minute, (entered).* from hse_enter_api_key(:prefix)"
).execution_options(is_kept=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """The actor of a transaction; `requests_per_minute` is the limit of the key that he came with."""

    actor: Actor
    requests_per_minute: int | None = None


def entering(principal: Principal) -> tuple[sa.TextClause, dict[str, Any]]:
    """The statement that looks the actor up and sets the scope of its transaction to what he reaches; and its parameters."""
    match principal:
        case SessionPrincipal(session_id=session_id):
            return ENTER_SESSION, {"session_id": session_id}
        case KeyPrincipal(prefix=prefix):
            return ENTER_API_KEY, {"prefix": prefix}


def entered(principal: Principal, row: Any) -> Entered:
    """Who that is, from the row that the statement answered, if any. Raises `Unauthenticated`."""
    if row is None:
        raise Unauthenticated
    match principal:
        case SessionPrincipal(session_id=session_id):
            return Entered(actor=_actor(row, session_id=session_id))
        case KeyPrincipal(secret_hash=secret_hash):
            if not hmac.compare_digest(row.secret_hash, secret_hash):
                raise Unauthenticated
            actor = _actor(row).limited_to(frozenset(row.key_actions), row.api_key_id)
            return Entered(actor=actor, requests_per_minute=row.requests_per_minute)


def _actor(row: Any, session_id: UUID | None = None) -> Actor:
    return Actor(
        user_id=row.user_id,
        email=row.email,
        role_id=row.role_id,
        hierarchy=row.hierarchy,
        partner_company_id=row.partner_company_id,
        organization_id=row.organization_id,
        has_all_establishments=row.has_all_establishments,
        actions=frozenset(row.actions),
        organization_ids=frozenset(row.organization_ids),
        establishments={
            UUID(establishment): None if held is None else frozenset(held)
            for establishment, held in row.establishments.items()
        },
        session_id=session_id,
    )
