"""`hse journal`: what the core has acknowledged and not yet stored."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hse._ingest_core import inspect_journal
from hse.cli.options import DataDir, settings_with
from hse.failure import Failure
from hse.settings import data_dir_of

app = typer.Typer(help="The journal on disk.", no_args_is_help=True)


@app.callback()
def journal() -> None:
    """The journal on disk."""


@app.command()
def inspect(
    path: Annotated[
        Path | None, typer.Argument(help="A lane's directory; every lane of the data directory when left out.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Describe the journal as JSON, a line a lane. The core must not be running on it."""
    lanes = [path] if path else sorted((data_dir_of(settings_with(data_dir)) / "journal").glob("lane-*"))
    if not lanes:
        raise typer.BadParameter(
            f"there is no journal in {data_dir_of(settings_with(data_dir))}; name a directory or use --data-dir"
        )
    for lane in lanes:
        try:
            described = json.loads(inspect_journal(str(lane)))
        except (OSError, ValueError, RuntimeError) as error:
            raise Failure(f"{lane}: {error}") from error
        print(json.dumps({"path": str(lane), **described}))
