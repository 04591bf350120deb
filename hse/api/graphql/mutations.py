"""Mutations from the commands: one makes, one changes, one deletes; each in a transaction of its own, one after the other."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import strawberry

from hse.adapters.postgres.work import PostgresWork
from hse.api.acting import Acting, Answered, Idempotency
from hse.api.bodies import given
from hse.api.graphql.connections import node_of
from hse.api.graphql.context import Asked, Context, context_of
from hse.api.graphql.entities import Entity
from hse.api.graphql.types import body_of, input_of
from hse.domain.errors import Invalid
from hse.domain.paging import Page

T = TypeVar("T")

IDEMPOTENCY_KEY_CHARS_MAX = 200


def creates(
    entity: Entity, body: type[msgspec.Struct], command: type[Any], function: Callable[..., Awaitable[Any]]
) -> Any:
    """A mutation that makes a thing; under one `idempotencyKey` it is made once, however often it is sent."""
    return makes(node_of(entity), body, lambda wanted, _: command(**given(wanted)), function)


def makes(
    kind: Any,
    body: type[msgspec.Struct],
    command_of: Callable[[Any, Context], Any],
    function: Callable[..., Awaitable[Any]],
) -> Any:
    """The same for what is not simply the body as a command, or answers with another type."""

    async def resolve(info: Asked, input: Any, idempotency_key: str | None = strawberry.UNSET) -> Any:  # noqa: A002
        context = context_of(info)
        wanted = body_of(body, input)
        acting = once(context.acting, info.field_name, wanted, idempotency_key)
        command = command_of(wanted, context)
        return await done(context, acting, lambda work: function(work, command), function)

    resolve.__annotations__["input"] = input_of(body)
    return strawberry.mutation(resolver=resolve, graphql_type=kind | None, description=described(function))


def changes(
    entity: Entity,
    body: type[msgspec.Struct],
    command_of: Callable[..., Any],
    function: Callable[..., Awaitable[Any]],
) -> Any:
    """A mutation that changes a thing; with `version` only while it has that one. What is left out stays, null empties."""
    return changes_within(entity, body, lambda wanted, _: command_of(**given(wanted)), function)


def changes_within(
    entity: Entity,
    body: type[msgspec.Struct],
    command_of: Callable[[Any, Context], Any],
    function: Callable[..., Awaitable[Any]],
) -> Any:
    """The same for what is not simply the body as a command."""
    return changes_to(node_of(entity), body, command_of, function)


def changes_to(
    kind: Any,
    body: type[msgspec.Struct],
    command_of: Callable[[Any, Context], Any],
    function: Callable[..., Awaitable[Any]],
) -> Any:
    """The same for what is no entity of its own, and goes by the id of what it belongs to."""

    async def resolve(
        info: Asked,
        id: UUID,  # noqa: A002
        input: Any,  # noqa: A002
        version: int | None = strawberry.UNSET,
    ) -> Any:
        context = context_of(info)
        change, expected = command_of(body_of(body, input), context), _expected(version)
        return await context.run(lambda work: function(work, id, change, version=expected), context.acting)

    resolve.__annotations__["input"] = input_of(body)
    return strawberry.mutation(resolver=resolve, graphql_type=kind | None, description=described(function))


def changes_own(
    kind: Any, body: type[msgspec.Struct], command_of: Callable[..., Any], function: Callable[..., Awaitable[Any]]
) -> Any:
    """The same for what the actor has one of, which therefore needs no id."""

    async def resolve(info: Asked, input: Any, version: int | None = strawberry.UNSET) -> Any:  # noqa: A002
        context = context_of(info)
        change, expected = command_of(**given(body_of(body, input))), _expected(version)
        return await context.run(lambda work: function(work, change, version=expected), context.acting)

    resolve.__annotations__["input"] = input_of(body)
    return strawberry.mutation(resolver=resolve, graphql_type=kind | None, description=described(function))


def acts(function: Callable[..., Awaitable[Any]], result: Any = None) -> Any:
    """A mutation that does something to the thing with this id; it answers `result`, or else the id."""

    async def resolve(info: Asked, id: UUID) -> Any:  # noqa: A002
        context = context_of(info)
        done = await context.run(lambda work: function(work, id), context.acting)
        return id if result is None else done

    kind = UUID if result is None else result
    return strawberry.mutation(resolver=resolve, graphql_type=kind | None, description=described(function))


def acts_once(function: Callable[..., Awaitable[Any]], result: Any) -> Any:
    """The same for what would be something else when it is done again; under one `idempotencyKey` it is done once."""

    async def resolve(info: Asked, id: UUID, idempotency_key: str | None = strawberry.UNSET) -> Any:  # noqa: A002
        context = context_of(info)
        acting = once(context.acting, info.field_name, id, idempotency_key)
        return await done(context, acting, lambda work: function(work, id), function)

    return strawberry.mutation(resolver=resolve, graphql_type=result | None, description=described(function))


def acts_once_oneself(function: Callable[..., Awaitable[Any]], result: Any) -> Any:
    """The same for what concerns the actor himself, and therefore needs no id."""

    async def resolve(info: Asked, idempotency_key: str | None = strawberry.UNSET) -> Any:
        context = context_of(info)
        acting = once(context.acting, info.field_name, None, idempotency_key)
        return await done(context, acting, function, function)

    return strawberry.mutation(resolver=resolve, graphql_type=result | None, description=described(function))


def acts_with(
    kind: Any,
    body: type[msgspec.Struct],
    command_of: Callable[[Any], Any],
    function: Callable[..., Awaitable[Any]],
) -> Any:
    """A mutation that does to the thing with this id what the input says; done again, it is the same."""

    async def resolve(info: Asked, id: UUID, input: Any) -> Any:  # noqa: A002
        context = context_of(info)
        command = command_of(body_of(body, input))
        done = await context.run(lambda work: function(work, id, command), context.acting)
        return done.items if isinstance(done, Page) else done

    resolve.__annotations__["input"] = input_of(body)
    return strawberry.mutation(resolver=resolve, graphql_type=kind | None, description=described(function))


def makes_of(
    kind: Any,
    body: type[msgspec.Struct],
    command_of: Callable[[Any], Any],
    function: Callable[..., Awaitable[Any]],
) -> Any:
    """The same for what would be another thing when it is done again; under one `idempotencyKey` it is done once."""

    async def resolve(
        info: Asked,
        id: UUID,  # noqa: A002
        input: Any,  # noqa: A002
        idempotency_key: str | None = strawberry.UNSET,
    ) -> Any:
        context = context_of(info)
        wanted = body_of(body, input)
        acting = once(context.acting, info.field_name, (id, wanted), idempotency_key)
        command = command_of(wanted)
        return await done(context, acting, lambda work: function(work, id, command), function)

    resolve.__annotations__["input"] = input_of(body)
    return strawberry.mutation(resolver=resolve, graphql_type=kind | None, description=described(function))


def once(acting: Acting, name: str, wanted: Any, key: str | None) -> Acting:
    """The same `Acting`, which runs this mutation once under this key. Raises `Invalid` for a key that cannot be one."""
    if key is None or key is strawberry.UNSET:
        return acting
    if not 1 <= len(key) <= IDEMPOTENCY_KEY_CHARS_MAX or "\0" in key:
        raise Invalid("idempotency_key", f"1 to {IDEMPOTENCY_KEY_CHARS_MAX} characters")
    digest = hashlib.sha256(f"graphql {name}\n".encode() + msgspec.json.encode(wanted, order="deterministic"))
    return replace(acting, idempotency=Idempotency(key=key, request_hash=digest.digest()))


async def done(
    context: Context,
    acting: Acting,
    command: Callable[[PostgresWork], Awaitable[T]],
    function: Callable[..., Awaitable[Any]],
) -> Any:
    """What a command answers; when it was done before under this key, what it answered then."""
    try:
        return await context.run(command, acting)
    except Answered as answered:
        return msgspec.json.decode(answered.body, type=function.__annotations__["return"])


def _expected(version: int | None) -> int | None:
    return None if version is strawberry.UNSET else version


def described(function: Callable[..., Any]) -> str:
    """What a command does: the first line of its docstring."""
    return (function.__doc__ or "").partition("\n")[0].partition(" Raises ")[0]
