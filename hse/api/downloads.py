"""CSV as it is downloaded: written while it is read, so that it takes no more memory however long it is.

A spreadsheet takes what begins with = + - @ for a formula and runs it, and devices choose the texts of their events. Such a text
gets an apostrophe in front; a plain number keeps its sign.
"""

import csv
import io
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from litestar.openapi.datastructures import ResponseSpec
from litestar.response import Stream

from hse.adapters.sheets import BYTE_ORDER_MARK, without_formula

CSV_MEDIA_TYPE = "text/csv; charset=utf-8"
CSV_RESPONSE = {
    200: ResponseSpec(bytes, description="A CSV (UTF-8).", media_type=CSV_MEDIA_TYPE, generate_examples=False)
}

Cell = str | float | datetime | None
Rows = Sequence[Sequence[Cell]]


def csv_download(name: str, header: Sequence[str], pieces: AsyncIterable[Rows]) -> Stream:
    """A download of rows that come in pieces, each sent before the next one is read.

    What goes wrong after the first byte ends the connection: the client sees that the file is not whole.
    """
    headers: dict[str, Any] = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Stream(_lines(header, pieces), media_type=CSV_MEDIA_TYPE, headers=headers)


async def _lines(header: Sequence[str], pieces: AsyncIterable[Rows]) -> AsyncIterator[bytes]:
    yield (BYTE_ORDER_MARK + _text([header])).encode()
    async for rows in pieces:
        if rows:
            yield _text(rows).encode()


def _text(rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerows([_shown(cell) for cell in row] for row in rows)
    return text.getvalue()


def _shown(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case str():
            return without_formula(cell)
        case datetime():
            return cell.isoformat().replace("+00:00", "Z")
    return repr(cell)
