"""The way of a request: who acts, one transaction, one command, one answer, given twice when it is asked for twice."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, TypeVar

import msgspec
from litestar import Request, Response
from litestar.di import NamedDependency
from litestar.params import HeaderParameter, SkipValidation
from litestar.types import Scope

from hse.adapters.postgres.database import Database
from hse.adapters.postgres.idempotency import find_answer, keep_answer
from hse.adapters.postgres.work import Origin, PostgresWork
from hse.adapters.sealing import Sealer
from hse.api.limits import admit
from hse.domain.errors import Invalid
from hse.domain.identity.principals import Principal, Unauthenticated
from hse.domain.policy import Actor

T = TypeVar("T")

ExpectedVersion = Annotated[
    str | None,
    HeaderParameter(name="If-Match", description="The ETag that was read: the change is made only if it still holds."),
]
IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        description="A name for this request. Sent again with the same one, it is answered again and not done again; for 24 h.",
        min_length=1,
        max_length=200,
    ),
]


class Answered(Exception):
    """This request was done before; here is what was answered then."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__("answered before")
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """The name that a caller gave its request, and the hash of the request that it is for."""

    key: str
    request_hash: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acting:
    """One request of somebody who proved who he is."""

    database: Database
    sealer: Sealer
    principal: Principal
    origin: Origin
    # Asked once the actor is known: whether he has not asked too often.
    admit: Callable[[PostgresWork], Awaitable[None]]
    idempotency: Idempotency | None = None

    async def read(self, query: Callable[[PostgresWork], Awaitable[T]]) -> T:
        """Run a query, each statement in a transaction of its own; it may be run again when its actor is changed meanwhile."""
        return await self.database.read(self.principal, self.origin, datetime.now(UTC), query, self.admit)

    async def try_out(self, command: Callable[[PostgresWork], Awaitable[T]]) -> T:
        """Run a command in a transaction of its own and undo what it did."""
        async with self.database.work(self.principal, self.origin, datetime.now(UTC)) as work:
            await self.admit(work)
            return await command(work)

    async def run(self, command: Callable[[PostgresWork], Awaitable[T]], *, status: int = 200) -> T:
        """Run a command in a transaction of its own and keep what it did. Raises `Answered` when it was done before."""
        async with self.database.work(self.principal, self.origin, datetime.now(UTC)) as work:
            await self.admit(work)
            if self.idempotency is not None:
                await self._look_up(work, self.idempotency)
            result = await command(work)
            if self.idempotency is not None:
                sealed = self.sealer.seal(msgspec.json.encode(result))
                name = _kept_name(work.actor, self.idempotency.key)
                await keep_answer(work.connection, work.actor.user_id, name, status, sealed)
            await work.commit()
            return result

    async def _look_up(self, work: PostgresWork, idempotency: Idempotency) -> None:
        name = _kept_name(work.actor, idempotency.key)
        found = await find_answer(work.connection, work.actor.user_id, name, idempotency.request_hash, work.now)
        if found is None:
            return
        if found.request_hash != idempotency.request_hash:
            raise Invalid("Idempotency-Key", "was used for another request: choose another one")
        raise Answered(found.status, self.sealer.unseal(found.sealed))


def _kept_name(actor: Actor, key: str) -> str:
    """Under what a user's answer is kept. His sessions share it; an API key, which may do less than others of his, does not."""
    if actor.api_key_id is None:
        return key
    return hashlib.sha256(f"{actor.api_key_id} {key}".encode()).hexdigest()


# What handlers ask for: `acting: Acts`, or `once: Acts` in a POST.
Acts = NamedDependency[SkipValidation[Acting]]
Version = NamedDependency[SkipValidation[int | None]]


async def provide_acting(request: Request[Any, Any, Any]) -> Acting:
    """The request's `Acting`. Raises `Unauthenticated`."""
    return acting_of(request.scope)


def acting_of(scope: Scope) -> Acting:
    """The `Acting` of the request that `scope` belongs to. Raises `Unauthenticated`."""
    state, passed = scope["litestar_app"].state, scope["state"]
    principal: Principal | None = passed.get("principal")
    if principal is None:
        raise Unauthenticated
    return Acting(
        database=state.database,
        sealer=state.sealer,
        principal=principal,
        origin=passed["origin"],
        admit=partial(admit, passed, state),
    )


async def provide_once(request: Request[Any, Any, Any], acting: Acts, idempotency_key: IdempotencyKey = None) -> Acting:
    """The same for a POST, which is done once however often it is sent under one Idempotency-Key."""
    if idempotency_key is None:
        return acting
    return once_for(request, acting, idempotency_key, await request.body())


def once_for(request: Request[Any, Any, Any], acting: Acting, idempotency_key: str, content: bytes) -> Acting:
    """Do a request once under this key; it is the same one while its path, its query and its content are."""
    digest = hashlib.sha256(f"{request.method} {request.url.path}?{request.url.query}\n".encode())
    digest.update(content)
    return replace(acting, idempotency=Idempotency(key=idempotency_key, request_hash=digest.digest()))


async def provide_version(if_match: ExpectedVersion = None) -> int | None:
    """The version that If-Match names. Raises `Invalid`."""
    if if_match is None or if_match.strip() == "*":
        return None
    text = if_match.strip().removeprefix("W/").strip('"')
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Invalid("If-Match", "send the ETag that a GET of this resource answered")
    return int(text)


# A coroutine, like every hook and guard: a plain function would be sent to a thread for each request.
async def add_etag(response: Response[Any]) -> Response[Any]:
    """Answer what has a version with its ETag."""
    version = getattr(response.content, "version", None)
    if isinstance(version, int):
        response.headers["ETag"] = f'"{version}"'
    return response
