"""Which module of the ingest core may know which: event <- frame; the journal knows neither; then pipeline; then the outside."""

import re
from pathlib import Path

import pytest

from tests.checks.sources import ROOT, files, is_rust_test, name

SOURCES = ROOT / "ingest-core" / "src"

# Words that everybody may use: limits and numbers.
WORDS = {"config", "metrics"}
INSIDE = WORDS | {"event", "frame", "journal", "pipeline", "tls"}
MAY_KNOW: dict[str, set[str]] = {
    "event": set(),
    "frame": {"event"},
    "journal": set(),
    "config": set(),
    "metrics": set(),
    "tls": set(),
    "scheduling": set(),
    "pipeline": WORDS | {"event", "frame", "journal"},
    "outbound": INSIDE,
    # What a running node is made of; connections hold it.
    "node": INSIDE | {"outbound"},
    "inbound": INSIDE | {"node"},
}
# The composition: it may know all, and nothing above may know it.
ABOVE = {"lib", "startup", "shutdown", "python"}

COMMENT = re.compile(r"//.*")
KNOWN = re.compile(r"\bcrate::(?:\{([^}]*)\}|(\w+))")
PYTHON = re.compile(r"\bpyo3\b")


def module_of(path: Path) -> str:
    return path.relative_to(SOURCES).parts[0].removesuffix(".rs")


def code_of(path: Path) -> str:
    return COMMENT.sub("", path.read_text(encoding="utf-8"))


def known_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for group, single in KNOWN.findall(code_of(path)):
        found |= {part.strip().split("::")[0] for part in group.split(",") if part.strip()} if group else {single}
    # `crate::Name` is a re-export of the root, `crate::module` a module.
    return {module for module in found if module.islower()} - {module_of(path)}


RUST_FILES = [path for path in files(".rs", "ingest-core/src") if not is_rust_test(path)]


@pytest.mark.parametrize("path", RUST_FILES, ids=name)
def test_a_module_knows_only_those_below_it(path: Path) -> None:
    module = module_of(path)
    if module not in ABOVE:
        assert module in MAY_KNOW, f"{name(path)}: say in MAY_KNOW what the module {module!r} may know"
        assert known_modules(path) <= MAY_KNOW[module]


def test_python_is_known_in_one_file() -> None:
    assert [name(path) for path in RUST_FILES if PYTHON.search(code_of(path))] == ["ingest-core/src/python.rs"]


def test_metrics_are_named_in_one_file() -> None:
    naming = re.compile(r"hse_ingest_|\bprometheus_client\b")
    # The crate's own name, hse_ingest_core, is no metric.
    found = [name(path) for path in RUST_FILES if naming.search(code_of(path).replace("hse_ingest_core", ""))]
    assert found == ["ingest-core/src/metrics.rs"]


def test_suppressions_say_why_and_are_needed() -> None:
    """`expect` fails when it is not needed any more; `allow` stays for ever."""
    allowed = [name(path) for path in files(".rs") if re.search(r"#!?\[allow\(", code_of(path))]
    assert allowed == []
    unexplained = [
        name(path)
        for path in files(".rs")
        for attribute in re.findall(r"#!?\[expect\((.*?)\)\]", code_of(path), flags=re.DOTALL)
        if "reason" not in attribute
    ]
    assert unexplained == []
