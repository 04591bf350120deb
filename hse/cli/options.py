"""Options that many commands share, and what they lead to."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from hse.settings import Settings, read_settings

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The data directory of `hse up`; HSE_DATA_DIR, or .hse.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ReadyFile = Annotated[
    Path | None, typer.Option("--ready-file", help="A file to make when the work has begun.", hidden=True)
]


def settings_with(data_dir: Path | None) -> Settings:
    """Read the settings; `--data-dir` wins over the environment."""
    settings = read_settings(os.environ)
    return settings if data_dir is None else replace(settings, data_dir=data_dir)
