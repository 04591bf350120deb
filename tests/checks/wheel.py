"""Build the wheel, from what is compiled already, and say what of the package is not in it: migrations, pages, stubs, extension.

Run as `python -m tests.checks.wheel`, with `--wheel PATH` to look at one that is there.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.checks.sources import ROOT, name, tracked

EXTENSION = "hse/_ingest_core.abi3.so"


def build(directory: Path) -> Path:
    """The wheel of this tree. The extension of `make dev` is used again when nothing of it has changed."""
    maturin = Path(sys.executable).with_name("maturin")
    subprocess.run(
        [maturin, "build", "--release", "--locked", "--quiet", "--out", directory],
        cwd=ROOT,
        check=True,
    )
    (wheel,) = directory.glob("*.whl")
    return wheel


def missing_in(wheel: Path) -> list[str]:
    """The files of the package that a wheel does not hold."""
    wanted = {name(path) for path in tracked() if name(path).startswith("hse/")} | {EXTENSION}
    with zipfile.ZipFile(wheel) as archive:
        return sorted(wanted - set(archive.namelist()))


def main() -> int:
    """Tell what is missing; 1 when anything is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel", type=Path)
    given: Path | None = parser.parse_args().wheel
    with tempfile.TemporaryDirectory() as directory:
        wheel = given or build(Path(directory))
        missing = missing_in(wheel)
    for one in missing:
        print(f"not in {wheel.name}: {one}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
