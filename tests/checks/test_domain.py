"""The domain decides and knows nothing but the standard library; its errors are fit to be shown by any skin."""

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hse.domain.errors import DomainError, ErrorKind
from tests.checks.sources import ROOT, files, name

DOMAIN_FILES = files(".py", "hse/domain")
# No clock, no ids, no environment in the domain: they come in as arguments.
FORBIDDEN_MODULES = {
    "os",
    "time",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "threading",
    "asyncio",
    "logging",
    "uuid.uuid4",
}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def domain_errors() -> list[type[DomainError]]:
    for path in DOMAIN_FILES:
        importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    found, waiting = [], list(DomainError.__subclasses__())
    while waiting:
        error = waiting.pop()
        found.append(error)
        waiting += error.__subclasses__()
    return found


@pytest.mark.parametrize("path", DOMAIN_FILES, ids=name)
def test_the_domain_imports_the_standard_library_only(path: Path) -> None:
    foreign = [
        one
        for one in imported(path)
        if one.split(".")[0] not in sys.stdlib_module_names and not one.startswith("hse.domain")
    ]
    assert foreign == []
    machine = [one for one in imported(path) if one in FORBIDDEN_MODULES or one.split(".")[0] in FORBIDDEN_MODULES]
    assert machine == []


def test_every_domain_error_has_a_kind_a_code_of_its_own_and_a_line_that_says_what_it_is() -> None:
    errors = domain_errors()
    assert errors
    codes = [error.code for error in errors]
    assert len(codes) == len(set(codes))
    for error in errors:
        assert isinstance(error.kind, ErrorKind), error
        assert "." in error.code, error
        assert error.__doc__, error
