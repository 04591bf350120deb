"""The golden vectors of the protocol bind both languages: each file is read by a Rust test and by a Python one."""

from tests.checks.sources import ROOT, files, name, tracked


def test_every_vector_file_is_read_by_both_languages() -> None:
    vectors = [path for path in tracked() if path.is_relative_to(ROOT / "tests" / "vectors")]
    assert vectors, "tests/vectors holds the golden vectors of PROTOCOL.md"
    here = ROOT / "tests" / "checks"
    rust = "".join(path.read_text(encoding="utf-8") for path in files(".rs", "ingest-core"))
    python = "".join(
        path.read_text(encoding="utf-8") for path in files(".py", "tests") if not path.is_relative_to(here)
    )
    data = [path for path in vectors if path.suffix not in (".py", ".md")]
    assert [name(path) for path in data if path.name not in rust] == []
    assert [name(path) for path in data if path.name not in python] == []
