"""API keys."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Router, delete, get, patch, post
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, UnsetType

from hse.api.acting import Acts, Version
from hse.api.bodies import LINE, Body, given
from hse.api.limits import RequestLimits
from hse.api.paging import Paged
from hse.domain.identity import api_keys
from hse.domain.identity.api_keys import ApiKey, IssuedApiKey
from hse.domain.paging import Page

KeyName = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=LINE, examples=["building dashboard"])]
KeyActions = Annotated[
    list[Annotated[str, msgspec.Meta(max_length=100, pattern=LINE)]],
    msgspec.Meta(min_length=1, max_length=200, examples=[["read_device"]]),
]
Moment = Annotated[datetime, msgspec.Meta(tz=True, examples=["2038-01-01T00:00:00Z"])]
Rate = Annotated[int, msgspec.Meta(ge=1, le=100_000, examples=[60])]


class NewApiKey(Body):
    """A key to be made. Without `requests_per_minute` it has as many as a key gets here, 600 at most."""

    name: KeyName
    actions: KeyActions
    expires_at: Moment | None = None
    requests_per_minute: Rate | None = None


class ApiKeyChange(Body):
    """What changes of a key; `actions` is all that it is to hold."""

    name: KeyName | UnsetType = UNSET
    actions: KeyActions | UnsetType = UNSET
    expires_at: Moment | UnsetType | None = UNSET
    requests_per_minute: Rate | UnsetType = UNSET


def command_of(wanted: NewApiKey, limits: RequestLimits) -> api_keys.CreateApiKey:
    """What is wanted, within what a key gets here."""
    most, requests = limits.key_per_minute_max, wanted.requests_per_minute
    return api_keys.CreateApiKey(
        name=wanted.name,
        actions=wanted.actions,
        expires_at=wanted.expires_at,
        requests_per_minute=min(api_keys.REQUESTS_PER_MINUTE, most) if requests is None else requests,
        requests_per_minute_max=most,
    )


def change_of(wanted: ApiKeyChange, limits: RequestLimits) -> api_keys.ChangeApiKey:
    """What is to be changed, within what a key gets here."""
    return api_keys.ChangeApiKey(**given(wanted), requests_per_minute_max=limits.key_per_minute_max)


@get("/api-keys")
async def list_api_keys(acting: Acts, page: Paged) -> Page[ApiKey]:
    """List your API keys, the revoked ones too."""
    return await acting.read(lambda work: api_keys.own_api_keys(work, page))


@post("/api-keys")
async def create_api_key(request: Request[Any, Any, Any], once: Acts, data: JSONBody[NewApiKey]) -> IssuedApiKey:
    """Make an API key with a part of your own actions. Its text is shown this once."""
    command = command_of(data, request.app.state.limits)
    return await once.run(lambda work: api_keys.create_api_key(work, command), status=201)


@get("/api-keys/{api_key_id:uuid}")
async def get_api_key(acting: Acts, api_key_id: FromPath[UUID]) -> ApiKey:
    """Read an API key, yours or that of somebody whose keys you look after."""
    return await acting.read(lambda work: api_keys.api_key(work, api_key_id))


@patch("/api-keys/{api_key_id:uuid}")
async def change_api_key(
    request: Request[Any, Any, Any],
    acting: Acts,
    api_key_id: FromPath[UUID],
    data: JSONBody[ApiKeyChange],
    version: Version,
) -> ApiKey:
    """Change an API key of yours, from its next request on; its text stays as it is."""
    command = change_of(data, request.app.state.limits)
    return await acting.run(lambda work: api_keys.change_api_key(work, api_key_id, command, version=version))


@delete("/api-keys/{api_key_id:uuid}")
async def revoke_api_key(acting: Acts, api_key_id: FromPath[UUID]) -> None:
    """Revoke an API key, from its next request on. It stays in the list."""
    await acting.run(lambda work: api_keys.revoke_api_key(work, api_key_id))


@get("/users/{user_id:uuid}/api-keys")
async def list_api_keys_of_user(acting: Acts, user_id: FromPath[UUID], page: Paged) -> Page[ApiKey]:
    """List the API keys of somebody whose keys you look after."""
    return await acting.read(lambda work: api_keys.api_keys_of(work, user_id, page))


router = Router(
    path="/",
    tags=["api keys"],
    route_handlers=[
        list_api_keys,
        create_api_key,
        get_api_key,
        change_api_key,
        revoke_api_key,
        list_api_keys_of_user,
    ],
)
