"""`hse journal`: what the core has acknowledged and not yet stored."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hse._ingest_core import inspect_journal, repair_journal
from hse.cli.options import DataDir, settings_with
from hse.failure import Failure
from hse.settings import data_dir_of

app = typer.Typer(help="The journal on disk.", no_args_is_help=True)


@app.command()
def inspect(
    path: Annotated[Path | None, typer.Argument(help="A lane's directory; all lanes when left out.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Describe the journal as JSON, a line a lane. Changes nothing; the core may be running."""
    lanes = [path] if path else lanes_of(data_dir_of(settings_with(data_dir)))
    for lane in lanes:
        try:
            print(json.dumps(json.loads(inspect_journal(str(lane)))))
        except (OSError, ValueError, RuntimeError) as error:
            raise Failure(str(error)) from error


@app.command()
def repair(
    path: Annotated[Path, typer.Argument(help="The lane's directory, as the error named it.", show_default=False)],
) -> None:
    """Give up what cannot be read, keep all that can, and say which is which. The core must not be running."""
    try:
        print(json.dumps(json.loads(repair_journal(str(path)))))
    except (OSError, ValueError, RuntimeError) as error:
        raise Failure(str(error)) from error


def lanes_of(data_dir: Path) -> list[Path]:
    """Return the journals of a data directory; raises `Failure` when there is none."""
    lanes = sorted((data_dir / "journal").glob("lane-*"))
    if not lanes:
        raise Failure(f"there is no journal in {data_dir}: name its directory, or use --data-dir")
    return lanes
