"""People, their roles and where they work."""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, delete, get, patch, put
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, UnsetType

from hse.api.acting import Acts, Version
from hse.api.bodies import Body, PersonName, given
from hse.api.paging import Paged, filtered
from hse.domain.identity import users
from hse.domain.identity.model import Assignment, User
from hse.domain.paging import Page


class UserChange(Body):
    """What changes of a person."""

    first_name: PersonName | UnsetType = UNSET
    last_name: PersonName | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET


class NewRoleOfUser(Body):
    """The role that a person is to have. With another company or organisation he leaves the one he belongs to."""

    role_id: UUID
    has_all_establishments: bool = False
    partner_company_id: UUID | UnsetType | None = UNSET
    organization_id: UUID | UnsetType | None = UNSET


class WorkPlace(Body):
    """An establishment, and the role that the person has there in place of his own."""

    establishment_id: UUID
    role_id: UUID | None = None


class WorkPlaces(Body):
    """Where a person is to work, of the establishments that you look after."""

    establishments: Annotated[list[WorkPlace], msgspec.Meta(max_length=users.ESTABLISHMENTS_MAX)]


@get("/users")
async def list_users(
    acting: Acts,
    page: Paged,
    role_id: FromQuery[UUID | None] = None,
    partner_company_id: FromQuery[UUID | None] = None,
    organization_id: FromQuery[UUID | None] = None,
    establishment_id: FromQuery[UUID | None] = None,
    is_active: FromQuery[bool | None] = None,
) -> Page[User]:
    """List the people that you may see; `q` looks in names and e-mail addresses."""
    query = filtered(
        page,
        role_id=role_id,
        partner_company_id=partner_company_id,
        organization_id=organization_id,
        establishment_id=establishment_id,
        is_active=is_active,
    )
    return await acting.read(lambda work: users.users(work, query))


@get("/users/{user_id:uuid}")
async def get_user(acting: Acts, user_id: FromPath[UUID]) -> User:
    """Read a person."""
    return await acting.read(lambda work: users.user(work, user_id))


@patch("/users/{user_id:uuid}")
async def change_user(
    acting: Acts,
    user_id: FromPath[UUID],
    data: JSONBody[UserChange],
    version: Version,
) -> User:
    """Change a person. Disabling him ends his sessions and API keys at once."""
    command = users.ChangeUser(**given(data))
    return await acting.run(lambda work: users.change_user(work, user_id, command, version=version))


@delete("/users/{user_id:uuid}")
async def delete_user(acting: Acts, user_id: FromPath[UUID]) -> None:
    """Delete a person, with his sessions, keys and assignments."""
    await acting.run(lambda work: users.delete_user(work, user_id))


@put("/users/{user_id:uuid}/role")
async def assign_role(
    acting: Acts,
    user_id: FromPath[UUID],
    data: JSONBody[NewRoleOfUser],
    version: Version,
) -> User:
    """Give a person another role, no higher than your own; it counts from his next request on."""
    command = users.AssignRole(**given(data))
    return await acting.run(lambda work: users.assign_role(work, user_id, command, version=version))


@get("/users/{user_id:uuid}/establishments")
async def list_user_establishments(acting: Acts, user_id: FromPath[UUID]) -> Page[Assignment]:
    """List where a person works, of the establishments that you may see; always one page."""
    return await acting.read(lambda work: users.user_establishments(work, user_id))


@put("/users/{user_id:uuid}/establishments")
async def assign_establishments(acting: Acts, user_id: FromPath[UUID], data: JSONBody[WorkPlaces]) -> Page[Assignment]:
    """Say where a person works, of the establishments that you look after; at others he stays as he is."""
    wanted = [users.WorkAt(**given(one)) for one in data.establishments]
    return await acting.run(lambda work: users.assign_establishments(work, user_id, wanted))


router = Router(
    path="/",
    tags=["users"],
    route_handlers=[
        list_users,
        get_user,
        change_user,
        delete_user,
        assign_role,
        list_user_establishments,
        assign_establishments,
    ],
)
