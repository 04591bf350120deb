"""One page shape for every list: so many items, and where to go on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

PAGE_LIMIT_MAX = 200
PAGE_LIMIT = 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQuery:
    """What to list: `filters` by column, `search` in names, `sort` with a leading "-" for descending."""

    limit: int = PAGE_LIMIT
    cursor: str | None = None
    sort: str | None = None
    search: str | None = None
    filters: Mapping[str, object] = field(default_factory=dict)
    with_total: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Items in order; `next_cursor` is None on the last page, `total` when it was not asked for."""

    items: list[T]
    next_cursor: str | None
    total: int | None = None
