"""Inviting somebody, and answering for him."""

from typing import Any
from uuid import UUID

import psycopg

from tests.api.conftest import Client
from tests.api.mailboxes import letters_to, link_in
from tests.api.world import PASSWORD, Person, World

EMAIL = "new@example.org"


def role_ids(world: World) -> dict[str, UUID]:
    """The system roles by name, and the custom ones of the world."""
    with psycopg.connect(world.database_url) as connection:
        return dict(connection.execute("select name, id from roles").fetchall())


def execute(world: World, statement: str, *values: object) -> None:
    """Change something as the owner of the database."""
    with psycopg.connect(world.database_url) as connection:
        connection.execute(statement.encode(), values)


async def invite(api: Client, by: Person, role_id: UUID, **more: Any) -> Any:
    """What comes of inviting somebody."""
    body = {"email": EMAIL, "first_name": "Nora", "last_name": "Paz", "role_id": str(role_id), **more}
    return await api.post("/api/v1/invitations", headers=by.headers, json=body)


def token_sent(world: World, email: str = EMAIL) -> str:
    """The token in the last letter to the address."""
    return link_in(letters_to(world.database_url, email)[-1]).partition("/invitations#token=")[2]


async def answer(api: Client, way: str, token: str, **more: Any) -> Any:
    """What comes of answering an invitation: of `preview`, `accept` or `reject`."""
    if way == "accept":
        more = {"password": PASSWORD, **more}
    return await api.post(f"/api/v1/invitations/{way}", json={"token": token, **more})
