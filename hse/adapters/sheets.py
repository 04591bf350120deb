"""Tables out of files that people keep: CSV as spreadsheets write it, and XLSX; and CSV for them to mend.

Whatever a file claims about itself, reading it takes bounded memory and time: a CSV by its size, a workbook because another process
reads it (`workbook`).
"""

import csv
import difflib
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from hse.adapters import workbook
from hse.adapters.processors import HALF_OF_PROCESSORS
from hse.domain.imports.cells import ALL_COLUMNS
from hse.domain.imports.model import (
    BLANKS,
    CELL_BYTES_MAX,
    PROBLEM_COLUMN,
    ROWS_MAX,
    MissingColumn,
    Outcome,
    Report,
    Row,
    Table,
    TableTooLarge,
    UnknownColumn,
    UnreadableTable,
)

FILE_BYTES_MAX = 5 << 20
UNPACKED_BYTES_MAX = 64 << 20
PACKED_FILES_MAX = 1000
ZIP_MAGIC = b"PK\x03\x04"
COLUMNS_MAX = 100
# All cells as long as they may be, each of their characters doubled because it is a quote.
LINE_CHARS_MAX = COLUMNS_MAX * 2 * CELL_BYTES_MAX
WORKBOOK_SECONDS_MAX = 30
# So many files may be read at once.
READ_AT_ONCE_MAX = HALF_OF_PROCESSORS
UNREADABLE_WORKBOOK = (
    "this is no XLSX workbook that can be read with the memory that is given to it: save it again, or as CSV UTF-8"
)
# What a spreadsheet would take for a formula, unless it is a plain number.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
PLAIN_NUMBER = re.compile(r"[+-]?[0-9][0-9.,]*")
BYTE_ORDER_MARK = "\ufeff"

Cells = Sequence[str]


def read_table(content: bytes) -> Table:
    """The table in a file, CSV or XLSX by its content.

    Raises `UnreadableTable`, `TableTooLarge`, `UnknownColumn`, `MissingColumn`.
    """
    if len(content) > FILE_BYTES_MAX:
        raise TableTooLarge(f"a file has {FILE_BYTES_MAX >> 20} MiB at most")
    if content.startswith(ZIP_MAGIC):
        return _table(_workbook_rows(content), ",")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableTable("this is neither XLSX nor UTF-8: save it as XLSX or as CSV UTF-8") from error
    delimiter = _delimiter_of(text)
    return _table(_csv_rows(text, delimiter), delimiter)


def failed_rows(table: Table, report: Report) -> str | None:
    """A CSV of the rows that failed, with what is wrong in front, to be mended and sent again; None when there are none."""
    problems = {row.line: row for row in report.rows if row.outcome is Outcome.FAILED}
    if not problems:
        return None
    text = io.StringIO()
    # The mark tells a spreadsheet that this is UTF-8.
    text.write(BYTE_ORDER_MARK)
    writer = csv.writer(text, delimiter=table.delimiter, lineterminator="\r\n")
    writer.writerow([PROBLEM_COLUMN, *table.columns])
    for row in table.rows:
        if (found := problems.get(row.line)) is not None:
            where = "" if found.column is None else f"{found.column}: "
            cells = [f"row {found.line}: {where}{found.message}", *(row.cells.get(name, "") for name in table.columns)]
            writer.writerow([without_formula(cell) for cell in cells])
    return text.getvalue()


def without_formula(cell: str) -> str:
    """The cell as a spreadsheet shows it and does not run it: an apostrophe makes a text of it; reading takes it away again."""
    is_harmless = not cell.startswith((*FORMULA, "'")) or PLAIN_NUMBER.fullmatch(cell) is not None
    return cell if is_harmless else f"'{cell}"


def _cell(text: str, line: int) -> str:
    if len(text) > CELL_BYTES_MAX or len(text.encode()) > CELL_BYTES_MAX:
        raise TableTooLarge(f"row {line}: a cell has {CELL_BYTES_MAX >> 10} KiB at most")
    stripped = text.strip(BLANKS)
    if stripped.startswith("'") and stripped[1:].startswith((*FORMULA, "'")):
        return stripped[1:]
    return stripped


def _table(rows: Iterable[tuple[int, Cells]], delimiter: str) -> Table:
    numbered = iter(rows)
    _, header = next(numbered, (1, ()))
    _check_width(header, 1)
    columns = _columns(header)
    found: list[Row] = []
    num_filled = 0
    for line, texts in numbered:
        _check_width(texts, line)
        cells = [_cell(text, line) for text in texts]
        if not any(cells):
            continue
        if num_filled == ROWS_MAX:
            raise TableTooLarge(f"a table has {ROWS_MAX} rows at most: import it in parts")
        num_filled += 1
        placed = list(zip_longest(columns, cells, fillvalue=""))
        if any(cell and not name for name, cell in placed):
            raise UnreadableTable("has a cell where the header names no column", line)
        named = {name: cell for name, cell in placed if cell and name != PROBLEM_COLUMN}
        if named:
            found.append(Row(line=line, cells=named))
    named_columns = tuple(name for name in columns if name not in ("", PROBLEM_COLUMN))
    return Table(columns=named_columns, rows=found, delimiter=delimiter)


def _check_width(cells: Cells, line: int) -> None:
    if len(cells) > COLUMNS_MAX:
        raise TableTooLarge(f"row {line}: a table has {COLUMNS_MAX} columns at most")


def _columns(header: Cells) -> list[str]:
    """The names of the columns, in any order and case; empty ones for columns without. Raises `UnknownColumn`, `MissingColumn`."""
    columns: list[str] = []
    for text in header:
        name = re.sub(r"[\s-]+", "_", text.strip(BLANKS).lower())
        if name and (name not in (*ALL_COLUMNS, PROBLEM_COLUMN) or name in columns):
            close = difflib.get_close_matches(name, set(ALL_COLUMNS) - set(columns), n=1, cutoff=0.5)
            raise UnknownColumn(text, close[0] if close else None)
        columns.append(name)
    if "kind" not in columns:
        raise MissingColumn("kind")
    return columns


def _delimiter_of(text: str) -> str:
    """What separates the columns: a comma, a semicolon where the comma is the decimal mark, or a tab."""
    header = text.partition("\n")[0]
    return max(",;\t", key=header.count)


def _csv_rows(text: str, delimiter: str) -> Iterable[tuple[int, Cells]]:
    reader = csv.reader(_lines(text), delimiter=delimiter, strict=True)
    line = 0
    try:
        for line, cells in enumerate(reader, start=1):
            yield line, cells
    except csv.Error as error:
        raise UnreadableTable(f"is no CSV: {error}", line + 1) from error


def _lines(text: str) -> Iterable[str]:
    for number, line in enumerate(io.StringIO(text, newline=""), start=1):
        if len(line) > LINE_CHARS_MAX:
            raise TableTooLarge(f"line {number} of the file is longer than a row can be")
        yield line


def _workbook_rows(content: bytes) -> Iterable[tuple[int, Cells]]:
    """The rows of a workbook's first sheet, read by a process that may die of it."""
    _check_sizes(content)
    limits = [str(limit) for limit in (ROWS_MAX + 1, COLUMNS_MAX, CELL_BYTES_MAX)]
    command = [sys.executable, "-I", workbook.__file__, *limits]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=WORKBOOK_SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired as error:
        raise TableTooLarge("the workbook takes too long to read: save it as CSV UTF-8") from error
    if done.returncode == workbook.EXIT_TOO_LARGE:
        raise TableTooLarge("the workbook holds too much text: save it as CSV UTF-8")
    if done.returncode != 0:
        raise UnreadableTable(UNREADABLE_WORKBOOK)
    yield from json.loads(done.stdout)


def _check_sizes(content: bytes) -> None:
    """Raises `TableTooLarge` for a workbook that says itself that it unpacks to too much, `UnreadableTable` for what is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            parts = packed.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UnreadableTable(UNREADABLE_WORKBOOK) from error
    if len(parts) > PACKED_FILES_MAX or sum(part.file_size for part in parts) > UNPACKED_BYTES_MAX:
        raise TableTooLarge(f"the workbook has more than {UNPACKED_BYTES_MAX >> 20} MiB when it is unpacked")
