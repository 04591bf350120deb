"""`hse up`."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hse.cli.options import AsJson, DataDir, settings_with
from hse.settings import data_dir_of
from hse.simulation.meters import SPEED
from hse.supervision.interrupts import Interrupts
from hse.supervision.machine import Run
from hse.supervision.presenters import presenting
from hse.supervision.published import lock
from hse.wiring.machine import UpOptions, compose_machine


class Ports(StrEnum):
    """Where the ports come from."""

    FIXED = "fixed"
    AUTO = "auto"


def up(
    data_dir: DataDir = None,
    ports: Annotated[Ports, typer.Option(help="The ports of the settings, or free ones.")] = Ports.FIXED,
    is_json: AsJson = False,
    has_demo: Annotated[
        bool, typer.Option("--demo/--no-demo", help="Replay recorded meter readings through real sockets.")
    ] = True,
    replay_speed: Annotated[
        float, typer.Option(min=1, help="Recorded seconds a second, until the replay reaches now.")
    ] = SPEED,
    screenshot: Annotated[
        Path | None, typer.Option(help="Draw the view into this SVG file and stop.", hidden=True)
    ] = None,
    screenshot_after: Annotated[float, typer.Option(help="Seconds before the screenshot.", hidden=True)] = 30.0,
) -> None:
    """Start everything on this machine: PostgreSQL, Valkey, the ingest core, the worker and a demo. Ctrl-C drains and stops."""
    settings = settings_with(data_dir)
    options = UpOptions(
        is_auto_ports=ports is Ports.AUTO,
        has_demo=has_demo,
        replay_speed=replay_speed,
        screenshot=None if screenshot is None else (screenshot, screenshot_after),
    )
    interrupts = Interrupts()
    # The lock first: what is prepared below belongs to whoever holds it.
    with presenting(is_json=is_json) as presenter, lock(data_dir_of(settings)), interrupts.installed():
        Run(compose_machine(settings, options, os.environ), interrupts, presenter).run()
