"""Actions and roles."""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, UnsetType

from hse.api.acting import Acts, Version
from hse.api.bodies import LINE, TEXT, Body, given
from hse.api.paging import Paged, filtered
from hse.domain.identity import roles
from hse.domain.identity.model import Action, Role
from hse.domain.paging import Page

RoleName = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=LINE, examples=["device keeper"])]
Description = Annotated[str, msgspec.Meta(max_length=500, pattern=TEXT, examples=["Looks after the meters"])]
ActionName = Annotated[str, msgspec.Meta(min_length=1, max_length=60, pattern=LINE, examples=["read_device"])]
ActionNames = Annotated[list[ActionName], msgspec.Meta(max_length=500)]
Hierarchy = Annotated[int, msgspec.Meta(ge=5, le=roles.HIERARCHY_MAX, examples=[5])]


class NewRole(Body):
    """A custom role to be made. Without a binding it belongs to your company or organisation."""

    name: RoleName
    actions: ActionNames
    description: Description = ""
    hierarchy: Hierarchy = 5
    partner_company_id: UUID | None = None
    organization_id: UUID | None = None
    establishment_id: UUID | None = None


class RoleChange(Body):
    """What changes of a role; `actions` is all that it is to hold."""

    name: RoleName | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    actions: ActionNames | UnsetType = UNSET


@get("/actions")
async def list_actions(acting: Acts) -> Page[Action]:
    """List everything that can be allowed; always one page."""
    return await acting.read(roles.actions)


@get("/roles")
async def list_roles(
    acting: Acts,
    page: Paged,
    partner_company_id: FromQuery[UUID | None] = None,
    organization_id: FromQuery[UUID | None] = None,
    establishment_id: FromQuery[UUID | None] = None,
) -> Page[Role]:
    """List the roles that you may see, with what they hold."""
    query = filtered(
        page,
        partner_company_id=partner_company_id,
        organization_id=organization_id,
        establishment_id=establishment_id,
    )
    return await acting.read(lambda work: roles.roles(work, query))


@post("/roles")
async def create_role(once: Acts, data: JSONBody[NewRole]) -> Role:
    """Make a custom role, of actions that you hold yourself."""
    values = given(data)
    command = roles.CreateRole(**{**values, "actions": tuple(data.actions)})
    return await once.run(lambda work: roles.create_role(work, command), status=201)


@get("/roles/{role_id:uuid}")
async def get_role(acting: Acts, role_id: FromPath[UUID]) -> Role:
    """Read a role."""
    return await acting.read(lambda work: roles.role(work, role_id))


@patch("/roles/{role_id:uuid}")
async def change_role(
    acting: Acts,
    role_id: FromPath[UUID],
    data: JSONBody[RoleChange],
    version: Version,
) -> Role:
    """Change a role; it counts from its holders' next requests on. Of a system role, root changes what it holds."""
    values = given(data)
    if "actions" in values:
        values["actions"] = tuple(values["actions"])
    command = roles.ChangeRole(**values)
    return await acting.run(lambda work: roles.change_role(work, role_id, command, version=version))


@delete("/roles/{role_id:uuid}")
async def delete_role(acting: Acts, role_id: FromPath[UUID]) -> None:
    """Delete a custom role that nobody has."""
    await acting.run(lambda work: roles.delete_role(work, role_id))


router = Router(
    path="/",
    tags=["roles"],
    route_handlers=[list_actions, list_roles, create_role, get_role, change_role, delete_role],
)
