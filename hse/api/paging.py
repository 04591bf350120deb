"""The query parameters that every list takes."""

from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Annotated, Any

from litestar import Request
from litestar.di import NamedDependency
from litestar.params import QueryParameter, SkipValidation

from hse.domain.errors import Invalid
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


# A coroutine, like every hook and guard: a plain function would be sent to a thread for each request.
async def refuse_lax(request: Request[Any, Any, Any]) -> None:
    """Refuse what the framework takes for something else than what was written. Raises `Invalid`.

    `null`, for what is no text, would be a parameter that is not there: whoever's program writes it would be shown everything
    instead of what it filters by. A number would be a time.
    """
    if not request.scope["query_string"]:
        return
    optional, times = _names_of(request.route_handler)
    for name, value in request.query_params.multi_items():
        if name in optional and value.lower() == "null":
            raise Invalid(name, "null is no value: leave the parameter out")
        if name in times and _is_number(value):
            raise Invalid(name, "write the time as 2030-01-01T00:00:00Z")


@cache
def _names_of(handler: Any) -> tuple[frozenset[str], frozenset[str]]:
    """The names of a handler's parameters that may be left out and are no texts, and of those that are times."""
    functions = (handler, *handler.resolve_dependencies().values())
    parameters = {
        getattr(one.kwarg_definition, "name", None) or name: one
        for function in functions
        for name, one in function.parsed_fn_signature.parameters.items()
    }
    optional = {name for name, one in parameters.items() if one.is_optional and str not in one.args}
    return frozenset(optional), frozenset(name for name in optional if datetime in parameters[name].args)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
