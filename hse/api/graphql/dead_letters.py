"""What devices sent that could not be understood or stored."""

from typing import Any
from uuid import UUID

import strawberry

from hse.api.graphql.connections import PageInfo, check_first, page_info_of
from hse.api.graphql.context import Asked, context_of
from hse.api.graphql.types import mirrors
from hse.domain.paging import PAGE_LIMIT, Page, PageQuery
from hse.domain.telemetry import dead_letters as letters


@mirrors(letters.DeadLetterSummary)
class DeadLetterSummary:
    """How many dead letters a device has."""


@mirrors(letters.DeviceDeadLetter)
class DeviceDeadLetter:
    """What a device sent that could not be understood or stored, and why."""


@strawberry.type(description="A dead letter in a list.")
class DeadLetterEdge:
    """A dead letter in a list."""

    node: DeviceDeadLetter


@strawberry.type(description="A page of a device's dead letters, which nobody counts; `deadLetterSummary` does.")
class DeadLetterConnection:
    """A page of a device's dead letters."""

    edges: list[DeadLetterEdge]
    page_info: PageInfo


async def resolve_dead_letters(
    info: Asked,
    id: UUID,  # noqa: A002 (the argument's name)
    first: int = PAGE_LIMIT,
    after: str | None = None,
) -> Any:
    """A page of a device's dead letters."""
    check_first(first)
    query = PageQuery(limit=first, cursor=after)
    context = context_of(info)
    async with context.connections:
        page: Page[Any] = await context.acting.read(lambda work: letters.dead_letters(work, id, query))
    return DeadLetterConnection(
        edges=[DeadLetterEdge(node=letter) for letter in page.items],
        page_info=page_info_of(page),
    )


async def resolve_summary(root: strawberry.Parent[Any], info: Asked) -> Any:
    """How many dead letters a device has."""
    return await context_of(info).loaders.dead_letters(root.id)


@strawberry.type
class DeadLettersQuery:
    """What may be read of dead letters."""

    device_dead_letters = strawberry.field(
        resolver=resolve_dead_letters,
        graphql_type=DeadLetterConnection | None,
        description="What the device with this id sent and nobody could understand or store, the newest first.",
    )
