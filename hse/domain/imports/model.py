"""The table that is imported, and the report of what came of each row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from hse.domain.errors import DomainError, ErrorKind

ROWS_MAX = 10_000
CELL_BYTES_MAX = 8 * 1024
# What may stand around a cell and around a step of a path, and is no part of it.
BLANKS = " \t\r\n\u00a0"
# Ignored: the error file has it in front, and is sent again once it is mended.
PROBLEM_COLUMN = "problem"


class Kind(StrEnum):
    """What a row describes."""

    ESTABLISHMENT = "establishment"
    AREA = "area"
    DEVICE = "device"


class Mode(StrEnum):
    """What happens to the good rows when some are bad."""

    ALL_OR_NOTHING = "all_or_nothing"
    ROW_BY_ROW = "row_by_row"


class Outcome(StrEnum):
    """What came of a row; in a dry run or a refused import, what would have come of it."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    FAILED = "failed"


class UnreadableTable(DomainError):
    """The file is no table: not UTF-8, not a workbook, quotes that do not close, a row that is longer than the header."""

    kind: ClassVar[ErrorKind] = ErrorKind.INVALID
    code: ClassVar[str] = "imports.unreadable"

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason if line is None else f"row {line}: {reason}")
        self.reason = reason
        self.line = line


class TableTooLarge(DomainError):
    """The file, its rows or one of its cells are larger than an import may be."""

    kind: ClassVar[ErrorKind] = ErrorKind.INVALID
    code: ClassVar[str] = "imports.too-large"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnknownColumn(DomainError):
    """The header names a column that an import does not know, or one twice."""

    kind: ClassVar[ErrorKind] = ErrorKind.INVALID
    code: ClassVar[str] = "imports.unknown-column"

    def __init__(self, column: str, suggestion: str | None) -> None:
        hint = "" if suggestion is None else f": did you mean {suggestion}?"
        super().__init__(f"there is no column {column[:60]!r}, or it is there twice{hint}")
        self.column = column[:60]
        self.suggestion = suggestion


class MissingColumn(DomainError):
    """The header lacks a column that every import has."""

    kind: ClassVar[ErrorKind] = ErrorKind.INVALID
    code: ClassVar[str] = "imports.missing-column"

    def __init__(self, column: str) -> None:
        super().__init__(f"the first row names the columns, and {column} is not among them")
        self.column = column


class DuplicateRow(DomainError):
    """Two rows describe the same thing."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "imports.duplicate-row"

    def __init__(self, line: int) -> None:
        super().__init__(f"row {line} describes the same thing: keep one of them")
        self.line = line


class Ambiguous(DomainError):
    """A name that several things have."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "imports.ambiguous"

    def __init__(self, entity: str, name: str, instead: str) -> None:
        super().__init__(f"several have the name {name[:60]!r}: name the {entity} by its {instead}")
        self.entity = entity
        self.name = name


class ParentFailed(DomainError):
    """What the row hangs on is described by a row that failed."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "imports.parent-failed"

    def __init__(self, entity: str, line: int) -> None:
        super().__init__(f"its {entity} is described in row {line}, which failed")
        self.entity = entity
        self.line = line


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: its number in the sheet (the header is 1), and the cells that are not empty, without blanks around them."""

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as it was read. `delimiter` is that of its file: with a semicolon, numbers may have a decimal comma."""

    columns: tuple[str, ...]
    rows: list[Row]
    delimiter: str = ","


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """What came of a row. `code`, `column` and `message` say why it failed; `token` is told this once."""

    line: int
    kind: str | None
    name: str | None
    outcome: Outcome
    id: UUID | None = None
    code: str | None = None
    column: str | None = None
    message: str | None = None
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of an import. Unless it was applied, nothing was kept; `error_file` is a CSV of the rows that failed."""

    is_dry_run: bool
    mode: Mode
    is_applied: bool
    created: int
    updated: int
    unchanged: int
    failed: int
    rows: list[RowResult]
    error_file: str | None = None


class ImportRefused(DomainError):
    """An import of all or nothing has rows that failed: nothing was kept."""

    kind: ClassVar[ErrorKind] = ErrorKind.INVALID
    code: ClassVar[str] = "imports.refused"

    def __init__(self, report: Report) -> None:
        super().__init__(f"{report.failed} rows failed and nothing was kept: mend them, or import row by row")
        self.report = report
