"""What the operator does at the database itself, where nobody can be asked for permission yet."""

from dataclasses import dataclass, field
from uuid import UUID

import psycopg
import sqlalchemy as sa

from hse.adapters.postgres.identity_tables import audit_entries, credentials, roles, users
from hse.domain.errors import Taken


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRoot:
    """Somebody who may do everything."""

    email: str
    first_name: str
    last_name: str
    password_hash: str = field(repr=False)


def add_root(connection: sa.Connection, root: NewRoot) -> UUID:
    """Make a user with the role root, with an entry in the audit log. Raises `Taken`."""
    role_id = sa.select(roles.c.id).where(roles.c.type == "system", roles.c.hierarchy == 1).scalar_subquery()
    person = {"email": root.email, "first_name": root.first_name, "last_name": root.last_name}
    insert = sa.insert(users).values(**person, role_id=role_id, email_verified=True).returning(users.c.id)
    try:
        user_id: UUID = connection.execute(insert).scalar_one()
    except sa.exc.IntegrityError as error:
        if isinstance(error.orig, psycopg.errors.UniqueViolation):
            raise Taken("user", "email") from error
        raise
    connection.execute(sa.insert(credentials).values(user_id=user_id, password_hash=root.password_hash))
    connection.execute(
        sa.insert(audit_entries).values(
            actor_kind="operator",
            action="user.create",
            entity_type="user",
            entity_id=str(user_id),
            after={**person, "role": "root"},
        )
    )
    return user_id
