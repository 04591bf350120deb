"""Pages by keyset: the cursor holds the last row's sort value and id, so a page costs the same wherever it lies, and rows that come
and go meanwhile neither repeat nor hide others."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hse.domain.errors import Invalid
from hse.domain.paging import PAGE_LIMIT_MAX, PageQuery

# Of an id that is a number.
STORED_IDS = range(1 << 63)
AFTER, AFTER_ID, ROWS = "page_after", "page_after_id", "page_rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """By which column, in which direction, and after which (value, id)."""

    name: str
    is_descending: bool
    after: tuple[Any, Any] | None


def parse_order(
    query: PageQuery, sorts: Mapping[str, sa.Column[Any]], default: str, id_column: sa.Column[Any]
) -> Order:
    """The order that a query asks for. Raises `Invalid` for an unknown one, and for a cursor of another list."""
    if not 1 <= query.limit <= PAGE_LIMIT_MAX:
        raise Invalid("limit", f"between 1 and {PAGE_LIMIT_MAX}")
    wanted = query.sort or default
    name = wanted.removeprefix("-")
    if name not in sorts:
        raise Invalid("sort", f"one of {', '.join(sorts)}, with a leading - for descending")
    after = None if query.cursor is None else _decode(query.cursor, wanted, sorts[name], id_column)
    return Order(name=name, is_descending=wanted.startswith("-"), after=after)


def ordered(
    statement: sa.Select[Any], order: Order, column: sa.Column[Any], id_column: sa.Column[Any], limit: int
) -> sa.Select[Any]:
    """The statement for one page, and one row more, which says whether there is another page."""
    key = sa.tuple_(column, id_column)
    values = parameters_of(order, limit)
    if order.after is not None:
        after = sa.tuple_(
            sa.bindparam(AFTER, values[AFTER], column.type), sa.bindparam(AFTER_ID, values[AFTER_ID], id_column.type)
        )
        statement = statement.where(key < after if order.is_descending else key > after)
    by = (column.desc(), id_column.desc()) if order.is_descending else (column.asc(), id_column.asc())
    return statement.order_by(*by).limit(sa.bindparam(ROWS, values[ROWS], sa.BigInteger))


def parameters_of(order: Order, limit: int) -> dict[str, Any]:
    """The parameters of the statement for one page."""
    after = {} if order.after is None else {AFTER: order.after[0], AFTER_ID: order.after[1]}
    return {**after, ROWS: limit + 1}


def encode_cursor(order: Order, value: Any, row_id: Any) -> str:
    """The cursor behind a row."""
    wanted = f"-{order.name}" if order.is_descending else order.name
    text = json.dumps([wanted, value.isoformat() if isinstance(value, datetime) else value, str(row_id)])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str, wanted: str, column: sa.Column[Any], id_column: sa.Column[Any]) -> tuple[Any, Any]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        sort, value, row_id = json.loads(base64.urlsafe_b64decode(padded.encode("ascii")))
        if sort != wanted:
            raise ValueError("another order")
        kind = column.type.python_type
        if kind is datetime:
            value = datetime.fromisoformat(value)
        elif type(value) is not kind or (isinstance(value, str) and "\0" in value):
            raise ValueError("another type")
        key = id_column.type.python_type(str(row_id))
        if isinstance(key, int) and key not in STORED_IDS:
            raise ValueError("another id")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Invalid("cursor", "take it from `next_cursor` of a page with the same sort") from error
    return value, key
