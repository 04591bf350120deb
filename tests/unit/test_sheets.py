"""Files that people and attackers send: read as tables, or refused with a reason, in bounded memory."""

import io
import re
import struct
import zipfile
from collections.abc import Sequence

import pytest
import xlsxwriter

from hse.adapters.sheets import FILE_BYTES_MAX, failed_rows, read_table
from hse.domain.errors import DomainError
from hse.domain.imports.cells import path_of, path_text
from hse.domain.imports.model import (
    MissingColumn,
    Mode,
    Outcome,
    Report,
    Row,
    RowResult,
    Table,
    TableTooLarge,
    UnknownColumn,
    UnreadableTable,
)


def workbook(*rows: Sequence[object]) -> bytes:
    content = io.BytesIO()
    with xlsxwriter.Workbook(content, {"in_memory": True}) as book:
        sheet = book.add_worksheet()
        for number, row in enumerate(rows):
            sheet.write_row(number, 0, row)
    return content.getvalue()


def with_part(content: bytes, pattern: str, change: tuple[bytes, bytes]) -> bytes:
    """The workbook with something replaced in the parts whose name matches."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            part = old.read(name)
            if re.search(pattern, name):
                assert change[0] in part
                part = part.replace(*change)
            new.writestr(name, part)
    return changed.getvalue()


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("kind,name\ndevice,A\n", ","),
        ("\ufeffKIND;Name\r\ndevice;A\r\n", ";"),
        ("name\tkind\nA\tdevice", "\t"),
        ("kind,name\n\n ,\n device , A \n", ","),
        ('problem;kind;name\n"was wrong;\nvery";device;A', ";"),
        ("kind,name,,\ndevice,A,,\n", ","),
    ],
)
def test_a_csv_is_read_however_a_spreadsheet_wrote_it(text: str, delimiter: str) -> None:
    table = read_table(text.encode())
    assert table.delimiter == delimiter
    assert [row.cells for row in table.rows] == [{"kind": "device", "name": "A"}]


def test_rows_are_numbered_as_in_the_spreadsheet() -> None:
    table = read_table(b'kind,name\ndevice,"two\nlines"\n\ndevice,B\n')
    assert [row.line for row in table.rows] == [2, 4]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", MissingColumn),
        (b"name\nA\n", MissingColumn),
        (b"kind,nmae\n", UnknownColumn),
        (b"kind,Kind\n", UnknownColumn),
        ("kind,name\ndevice,Año".encode("cp1252"), UnreadableTable),
        (b'kind,name\ndevice,"A', UnreadableTable),
        (b"kind,name\ndevice,A,B\n", UnreadableTable),
        (b"kind,,name\ndevice,B,A\n", UnreadableTable),
        (b"PK\x03\x04 and nothing more", UnreadableTable),
        (bytes(range(256)) * 20, UnreadableTable),
        (b"kind,name\n" + b"device,A\n" * 10_001, TableTooLarge),
        (b"kind,name\ndevice," + b"A" * 8_193, TableTooLarge),
        (b"kind,name\ndevice," + "é".encode() * 4_097, TableTooLarge),
        (b"kind,name\ndevice," + b"A" * 200_000, (TableTooLarge, UnreadableTable)),
        (b"x" * (FILE_BYTES_MAX + 1), TableTooLarge),
        pytest.param(b"kind" + b"," * 100 + b"\n", TableTooLarge, id="a wide header"),
        pytest.param(b"kind,name\ndevice,A" + b"," * 99 + b"\n", TableTooLarge, id="a wide row"),
        pytest.param(b"problem,kind\n" + b"wrong,\n" * 10_001, TableTooLarge, id="problems of no rows"),
        pytest.param(b"kind\n" + b"," * (FILE_BYTES_MAX - 5), TableTooLarge, id="a line of commas"),
        pytest.param(workbook(["kind"], ["device", *[""] * 140, "A"]), TableTooLarge, id="a cell far to the right"),
    ],
)
def test_what_is_no_table_is_refused(content: bytes, error: type[DomainError] | tuple[type[DomainError], ...]) -> None:
    with pytest.raises(error):
        read_table(content)


def test_a_line_that_no_row_can_have_is_not_split_into_cells() -> None:
    with pytest.raises(TableTooLarge, match="longer than a row"):
        read_table(b"kind" + b"," * (4 << 20))


def test_ten_thousand_rows_are_read() -> None:
    assert len(read_table(b"kind,name\n" + b"device,A\n" * 10_000).rows) == 10_000


def test_a_column_that_is_nearly_one_is_suggested() -> None:
    with pytest.raises(UnknownColumn) as caught:
        read_table(b"kind,serial_nunber\n")
    assert caught.value.suggestion == "serial_number"


def test_a_workbook_cut_anywhere_is_refused() -> None:
    content = workbook(["kind", "name"], ["device", "A"])
    for length in range(4, len(content), 97):
        with pytest.raises(UnreadableTable):
            read_table(content[:length])


def test_a_workbook_that_unpacks_to_too_much_is_refused() -> None:
    content = io.BytesIO(workbook(["kind", "name"], ["device", "A"]))
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("xl/media/image.bin", bytes(65 << 20))
    assert len(content.getvalue()) < FILE_BYTES_MAX
    with pytest.raises(TableTooLarge, match="unpacked"):
        read_table(content.getvalue())


def test_a_workbook_that_lies_about_its_size_is_refused() -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("xl/workbook.xml", "w") as part:
        for _ in range(600):
            part.write(b" " * (1 << 20))
    size = struct.pack("<I", 600 << 20)
    assert content.getvalue().count(size) >= 1
    with pytest.raises(UnreadableTable):
        read_table(content.getvalue().replace(size, struct.pack("<I", 1000)))


@pytest.mark.parametrize(
    ("part", "change"),
    [
        pytest.param("sheet1", (b'r="B2"', b'r="XFD1048576"'), id="a cell far away"),
        pytest.param("sharedStrings", (b'uniqueCount="4"', b'uniqueCount="4294967295"'), id="texts beyond number"),
    ],
)
def test_a_workbook_that_asks_for_all_memory_ends_nothing_but_its_reading(
    part: str, change: tuple[bytes, bytes]
) -> None:
    content = workbook(["kind", "name"], ["device", "A"])
    with pytest.raises(UnreadableTable, match="memory"):
        read_table(with_part(content, part, change))


def test_a_workbook_that_shows_a_long_text_everywhere_is_refused() -> None:
    content = workbook(["kind", "name"], *([["y" * 8000] * 20] * 5000))
    assert len(content) < FILE_BYTES_MAX
    with pytest.raises((TableTooLarge, UnreadableTable)):
        read_table(content)


def test_a_workbook_with_too_many_rows_is_refused_and_a_full_one_read() -> None:
    assert len(read_table(workbook(["kind", "name"], *([["device", "A"]] * 10_000))).rows) == 10_000
    with pytest.raises(TableTooLarge, match="10000 rows"):
        read_table(workbook(["kind", "name"], *([["device", "A"]] * 10_001)))


def test_a_table_that_begins_further_down_keeps_its_numbers() -> None:
    assert [row.line for row in read_table(workbook([], ["", "kind"], [], ["", "device"])).rows] == [4]


def test_cells_of_a_workbook_are_read_as_a_csv_would_have_them() -> None:
    table = read_table(workbook(["kind", "floor", "latitude", "enabled", "name"], ["area", 2.0, -33.4, True, " A "]))
    assert table.rows == [
        Row(line=2, cells={"kind": "area", "floor": "2", "latitude": "-33.4", "enabled": "true", "name": "A"})
    ]


@pytest.mark.parametrize(
    "text", ["=1+1", "+A1", "-A1", "@x", "'quoted", "'=1", "plain", "-33.4", "-33,4", "+56", "Año"]
)
def test_what_is_written_for_mending_is_no_formula_and_is_read_back(text: str) -> None:
    table = Table(columns=("kind", "name"), rows=[Row(line=7, cells={"kind": "device", "name": text})])
    result = RowResult(line=7, kind="device", name=text, outcome=Outcome.FAILED, code="x", message="=HYPERLINK()")
    report = Report(
        is_dry_run=False,
        mode=Mode.ROW_BY_ROW,
        is_applied=True,
        created=0,
        updated=0,
        unchanged=0,
        failed=1,
        rows=[result],
    )
    written = failed_rows(table, report)
    assert written is not None
    for cell in written.splitlines()[1].split(","):
        assert cell.strip('"')[0] not in "=+-@" or re.fullmatch(r'"?[+-][0-9.,]+"?', cell), cell
    [row] = read_table(written.encode()).rows
    assert row.cells == {"kind": "device", "name": text}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("Tower A/Floor 2", ("Tower A", "Floor 2")),
        (" Tower A / Floor 2 ", ("Tower A", "Floor 2")),
        (r"24\/7/Room", ("24/7", "Room")),
        (r"C:\\/Room", ("C:\\", "Room")),
        (r"a\b", (r"a\b",)),
        ("", ()),
    ],
)
def test_a_path_names_areas_from_outside_inwards(text: str, path: tuple[str, ...]) -> None:
    assert path_of(text) == path
    assert path_of(path_text(path)) == path


@pytest.mark.parametrize("text", ["/", "a/", "/a", "a//b", " / "])
def test_a_path_with_an_empty_step_is_refused(text: str) -> None:
    with pytest.raises(DomainError, match="empty step"):
        path_of(text)
