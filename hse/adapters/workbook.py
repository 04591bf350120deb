"""The program that reads a workbook: bytes in on standard input, its first sheet's rows out on standard output as JSON.

It runs in a process of its own, with little memory and time, because a hostile workbook can make the library ask for a hundred
gigabytes, and a refused allocation ends the process. It is started as a file, so it knows nothing of this package.
"""

import io
import json
import resource
import sys
from datetime import date, datetime

from python_calamine import CalamineWorkbook

MEMORY_BYTES_MAX = 512 << 20
CPU_SECONDS_MAX = 20
OUTPUT_BYTES_MAX = 64 << 20
EXIT_TOO_LARGE = 3


def main(rows_max: int, columns_max: int, cell_chars_max: int) -> int:
    """Write `[number, cells]` of each row that is not blank, as JSON, and return the exit code.

    So that the reader can tell what is too much from what is just enough, there may be one more of everything.
    """
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS_MAX, CPU_SECONDS_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sheet = CalamineWorkbook.from_filelike(io.BytesIO(sys.stdin.buffer.read())).get_sheet_by_index(0)
    first_row, first_column = sheet.start or (0, 0)
    rows: list[tuple[int, list[str]]] = []
    num_bytes = 0
    for number, row in enumerate(sheet.to_python(), start=first_row + 1):
        cells = [""] * first_column + [text_of(cell)[: cell_chars_max + 1] for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        del cells[columns_max + 1 :]
        if cells and len(rows) <= rows_max:
            num_bytes += sum(map(len, cells))
            rows.append((number, cells))
        if num_bytes > OUTPUT_BYTES_MAX:
            return EXIT_TOO_LARGE
    json.dump(rows, sys.stdout)
    return 0


def text_of(cell: object) -> str:
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


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
