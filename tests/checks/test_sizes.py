"""Files, functions and argument lists stay small enough to be read whole. Rust functions are clippy's matter (clippy.toml)."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.checks.sources import files, is_generated, is_rust_test, name

PYTHON_FILE_LINES_MAX = 400
PYTHON_FUNCTION_LINES_MAX = 50
ARGUMENTS_MAX = 7
RUST_FILE_LINES_MAX = 500

# What is larger, and why it may be. An entry that is no longer needed is an error.
EXCEPTIONS: dict[str, str] = {
    "hse/cli/simulate.py::simulate": "every option of the command is an argument",
    "hse/settings.py::_setting": "what a setting may declare about itself, all of it by keyword",
}


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{name(path)}::{node.name}", node


def lines_without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """A long explanation is not a long function."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is not None:
        docstring = node.body[0]
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


def num_arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len([argument for argument in named if argument.arg not in ("self", "cls")])


def too_large() -> Iterator[str]:
    for path in files(".py"):
        if is_generated(path):
            continue
        if len(path.read_text(encoding="utf-8").splitlines()) > PYTHON_FILE_LINES_MAX:
            yield name(path)
        for qualified, node in functions(path):
            if lines_without_docstring(node) > PYTHON_FUNCTION_LINES_MAX or num_arguments(node) > ARGUMENTS_MAX:
                yield qualified
    for path in files(".rs"):
        if not is_rust_test(path) and len(path.read_text(encoding="utf-8").splitlines()) > RUST_FILE_LINES_MAX:
            yield name(path)


def test_nothing_is_too_large_to_be_read_whole() -> None:
    assert sorted(set(too_large()) - set(EXCEPTIONS)) == []


def test_every_exception_is_still_needed() -> None:
    assert sorted(set(EXCEPTIONS) - set(too_large())) == []
