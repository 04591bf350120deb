"""The project's own source files, as the checks see them."""

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that git knows or would add, so that a check sees new work before it is committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file())


def is_generated(path: Path) -> bool:
    """Whether a generator wrote a Python file: its size and its words are the generator's."""
    return path.parent.name == "ingest_stubs" and path.stem.startswith("devices_pb2")


def files(suffix: str, *folders: str) -> list[Path]:
    """The files with that suffix below the given folders of the repository; of all when none is given."""
    roots = [ROOT / folder for folder in folders] or [ROOT]
    return [path for path in tracked() if path.suffix == suffix and any(path.is_relative_to(root) for root in roots)]


def name(path: Path) -> str:
    """The path as it is written in lists of exceptions."""
    return path.relative_to(ROOT).as_posix()


def is_rust_test(path: Path) -> bool:
    """Whether a Rust file holds tests only."""
    is_named_so = path.stem == "testing" or path.stem.split("_")[-1] == "tests"
    return is_named_so or "tests" in path.relative_to(ROOT).parts
