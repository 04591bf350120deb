"""The query parameters that every list takes."""

from dataclasses import replace
from typing import Annotated, Any

from litestar.di import NamedDependency
from litestar.params import QueryParameter, SkipValidation

from hse.domain.paging import PAGE_LIMIT, PAGE_LIMIT_MAX, PageQuery

Limit = Annotated[int, QueryParameter(description="Items a page.", ge=1, le=PAGE_LIMIT_MAX)]
Cursor = Annotated[str | None, QueryParameter(description="`next_cursor` of the page before.", max_length=1000)]
Sort = Annotated[str | None, QueryParameter(description="A field; a leading - for descending.", max_length=60)]
Search = Annotated[str | None, QueryParameter(name="q", description="A part of the name.", max_length=200)]
WithTotal = Annotated[bool, QueryParameter(description="Count all items, too.")]


Paged = NamedDependency[SkipValidation[PageQuery]]


async def provide_page(
    limit: Limit = PAGE_LIMIT,
    cursor: Cursor = None,
    sort: Sort = None,
    search: Search = None,
    with_total: WithTotal = False,
) -> PageQuery:
    """What page is asked for."""
    return PageQuery(limit=limit, cursor=cursor, sort=sort, search=search, with_total=with_total)


def filtered(page: PageQuery, **filters: Any) -> PageQuery:
    """The page of those only that have these values; None filters nothing."""
    return replace(page, filters={name: value for name, value in filters.items() if value is not None})
