"""Tables out of files that people keep: CSV as spreadsheets write it, and XLSX; and CSV for them to mend.

Whatever the file claims about itself, reading it takes bounded memory: a workbook is unpacked here, under a limit, before the
library sees it, and must not name cells far outside the table that could be imported.
"""

import csv
import difflib
import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from datetime import date, datetime

from python_calamine import CalamineError, CalamineWorkbook

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
# A shared text stands once in a workbook and once in every cell that shows it.
SHOWN_BYTES_MAX = 512 << 20
ZIP_MAGIC = b"PK\x03\x04"
# Rows from 11 000 on and columns beyond AZ: the library allots memory for everything between the first cell and the last.
DISTANT_CELL = re.compile(
    rb"""\br\s*=\s*["'](?:(?:[A-Z]{3,}|[B-Z][A-Z])[0-9]+|[A-Z]{0,2}(?:[0-9]{6,}|[2-9][0-9]{4}|1[1-9][0-9]{3}))["']""",
    re.IGNORECASE,
)
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, IndexError, ValueError, RuntimeError, EOFError)
SHARED_TEXTS = "xl/sharedStrings.xml"
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
            writer.writerow([_without_formula(cell) for cell in cells])
    return text.getvalue()


def _without_formula(cell: str) -> str:
    """The apostrophe makes a text of it in a spreadsheet; reading takes it away again."""
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
    columns = _columns(header)
    found: list[Row] = []
    for line, texts in numbered:
        cells = [_cell(text, line) for text in texts]
        if any(cells[len(columns) :]):
            raise UnreadableTable("has more cells than the header has columns", line)
        named = {name: cell for name, cell in zip(columns, cells, strict=False) if cell and name != PROBLEM_COLUMN}
        if not named:
            continue
        if len(found) == ROWS_MAX:
            raise TableTooLarge(f"a table has {ROWS_MAX} rows at most: import it in parts")
        found.append(Row(line=line, cells=named))
    return Table(columns=tuple(name for name in columns if name != PROBLEM_COLUMN), rows=found, delimiter=delimiter)


def _columns(header: Cells) -> list[str]:
    """The names of the columns, whatever their order and case. Raises `UnknownColumn`, `MissingColumn`."""
    shown = [text.strip() for text in header]
    while shown and not shown[-1]:
        shown.pop()
    columns: list[str] = []
    for text in shown:
        name = re.sub(r"[\s-]+", "_", text.lower())
        if name not in (*ALL_COLUMNS, PROBLEM_COLUMN) or name in columns:
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
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 0
    try:
        for line, cells in enumerate(reader, start=1):
            yield line, cells
    except csv.Error as error:
        raise UnreadableTable(f"is no CSV: {error}", line + 1) from error


def _workbook_rows(content: bytes) -> Iterable[tuple[int, Cells]]:
    """The rows of a workbook's first sheet."""
    try:
        sheet = CalamineWorkbook.from_filelike(io.BytesIO(_unpacked(content))).get_sheet_by_index(0)
        rows = sheet.to_python(skip_empty_area=False)
    except (CalamineError, *BROKEN_ZIP) as error:
        raise UnreadableTable("this is no XLSX workbook that can be read: save it again, or as CSV UTF-8") from error
    for line, cells in enumerate(rows, start=1):
        yield line, [_workbook_cell(cell) for cell in cells]


def _unpacked(content: bytes) -> bytes:
    """The workbook again, not compressed, so that nobody inflates more of it than was counted. Raises `TableTooLarge`."""
    stored = io.BytesIO()
    longest_text, num_cells, num_bytes = 0, 0, 0
    with zipfile.ZipFile(io.BytesIO(content)) as packed, zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as unpacked:
        names = packed.namelist()
        if len(names) > PACKED_FILES_MAX:
            raise TableTooLarge("the workbook has too many parts")
        for name in names:
            with packed.open(name) as file:
                part = file.read(UNPACKED_BYTES_MAX - num_bytes + 1)
            num_bytes += len(part)
            if num_bytes > UNPACKED_BYTES_MAX:
                raise TableTooLarge(f"the workbook has more than {UNPACKED_BYTES_MAX >> 20} MiB when it is unpacked")
            if name.lower() == SHARED_TEXTS.lower():
                longest_text = max(map(len, part.split(b"<si")))
            elif b"sheetData" in part and DISTANT_CELL.search(part):
                raise TableTooLarge("the workbook has cells far outside the table: delete the empty rows and columns")
            num_cells += part.count(b"<c")
            unpacked.writestr(name, part)
    if longest_text * num_cells > SHOWN_BYTES_MAX:
        raise TableTooLarge("the workbook shows long texts in too many cells: save it as CSV UTF-8")
    return stored.getvalue()


def _workbook_cell(cell: object) -> str:
    """What a cell holds, as a CSV would have it."""
    match cell:
        case bool():
            return "true" if cell else "false"
        case float() if cell.is_integer():
            return str(int(cell))
        case datetime() | date():
            return cell.isoformat()
        case _:
            return str(cell)
