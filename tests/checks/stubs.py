"""Generates the Python side of `proto/devices.proto`; `make proto` writes it where the package has it."""

import subprocess
import sys
from pathlib import Path

from tests.checks.sources import ROOT

PACKAGE = "hse/adapters/ingest_stubs"
GENERATED = ("devices_pb2.py", "devices_pb2.pyi", "devices_pb2_grpc.py", "devices_pb2_grpc.pyi")


def generate(root: Path) -> None:
    """Write the generated files into the package below `root`."""
    bin_path = Path(sys.executable).parent
    subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc"),
            # As if the file lay in the package: generated modules import one another by its name.
            f"-I{PACKAGE}={ROOT / 'proto'}",
            *(f"--plugin={name}={bin_path / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")),
            *(f"--{kind}_out={root}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")),
            f"{PACKAGE}/devices.proto",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )


if __name__ == "__main__":
    generate(ROOT)
