"""Where a command on data finds its database."""

from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from hse.cli.options import settings_with
from hse.wiring.machine import Place, find_place


def place_of(data_dir: Path | None) -> Place:
    """Return the place that a command works on. An explicit `--data-dir` wins over HSE_DATABASE_URL."""
    settings = settings_with(data_dir)
    return find_place(settings if data_dir is None else replace(settings, database_url=None))


def database_message(error: Exception) -> str | None:
    """Return what to tell the user when it is the database that failed; None when it is something else."""
    if isinstance(error, sa.exc.OperationalError):
        return f"the database does not answer: {str(error.orig).strip()}"
    if isinstance(error, sa.exc.ProgrammingError):
        return f"the database refuses: {str(error.orig).strip()}; has `hse migrate` run?"
    return None
