"""The command line. One file a command or noun; errors tell the user what to do.

Commands on data find a running `hse up` by its data directory, or a database by HSE_DATABASE_URL.

Only the wanted command's file is imported: the core must be back within a second or so after a kill, without waiting for
libraries that only other commands use, and `hse doctor` must run when the extension is not built.
"""

import importlib
import sys
from typing import NoReturn

import typer

from hse.domain.errors import DomainError
from hse.failure import Failure
from hse.settings import SettingsError

# Name of the command, its module, and whether that holds a group of commands (`app`) or one, called like the module.
COMMANDS = {
    "up": ("up", False),
    "migrate": ("migrate", False),
    "ingest": ("ingest", False),
    "api": ("api", False),
    "worker": ("worker", False),
    "admin": ("admin", True),
    "devices": ("devices", True),
    "simulate": ("simulate", False),
    "events": ("events", False),
    "dead-letters": ("dead_letters", True),
    "parked-events": ("parked_events", True),
    "journal": ("journal", True),
    "doctor": ("doctor", False),
}
HELP = {
    "up": "Start everything on this machine and replay real meter readings.",
    "migrate": "Bring the database to the newest schema.",
    "ingest": "Run the ingest core.",
    "api": "Serve REST and GraphQL.",
    "worker": "Run the jobs.",
    "admin": "Make somebody who may do everything.",
    "devices": "Devices: add, list, enable, disable, give a new token.",
    "simulate": "Be devices: a synthetic fleet, or recorded meters.",
    "events": "Show the last events of a device.",
    "dead-letters": "Dead letters: list, try again, give up.",
    "parked-events": "Events that no handler could handle: list, try again, give up.",
    "journal": "The journal on disk.",
    "doctor": "Say what is missing or wrong, and how to mend it.",
}


def main() -> NoReturn:
    """Run the command line. What a user can mend is told in one line; anything else is a defect and shows its trace."""
    try:
        command_line(sys.argv[1] if len(sys.argv) > 1 else None)()
    except SettingsError as error:
        for mistake in error.mistakes:
            print(f"hse: {mistake}", file=sys.stderr)
        sys.exit(2)
    except (Failure, DomainError) as error:
        print(f"hse: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        if error.name != "hse._ingest_core":
            raise
        print("hse: the ingest core's extension is not built: run `make dev`", file=sys.stderr)
    except Exception as error:
        # Imported here, as it brings the database's libraries along.
        message = importlib.import_module("hse.cli.place").database_message(error)
        if message is None:
            raise
        print(f"hse: {message}", file=sys.stderr)
    sys.exit(1)


def command_line(wanted: str | None) -> typer.Typer:
    """Return the command line with the `wanted` command; with the names of all when it is none of them."""
    app = typer.Typer(
        name="hse",
        help="HSE: from a device's socket to a durable, stored event.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(lambda: None)
    for name, (module_name, is_group) in COMMANDS.items():
        if name != wanted:
            app.command(name, help=HELP[name])(_not_wanted)
            continue
        module = importlib.import_module(f"hse.cli.{module_name}")
        if is_group:
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, module_name))
    return app


def _not_wanted() -> None:
    """Stands in the list of commands for one that this run is not about."""
