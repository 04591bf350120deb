"""Which Python files touch the extension: the process it runs in, and the tool that reads its journal."""

import re

from tests.checks.sources import files, name


def test_only_the_ingest_process_and_the_journal_tool_import_the_core() -> None:
    importing = re.compile(r"^\s*(from|import) hse\._ingest_core|^\s*from hse import .*_ingest_core", re.MULTILINE)
    found = [name(path) for path in files(".py", "hse") if importing.search(path.read_text(encoding="utf-8"))]
    assert found == ["hse/cli/ingest.py", "hse/cli/journal.py"]
