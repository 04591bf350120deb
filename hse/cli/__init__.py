"""The command line. One file a noun; errors tell the user what to do.

Commands on data find a running `hse up` by its data directory, or a database by HSE_DATABASE_URL.
"""

import sys
from typing import NoReturn

import sqlalchemy as sa
import typer

from hse.adapters.postgres.migrate import MigrationsMissing
from hse.cli import dead_letters, devices, doctor, events, journal, processes, simulate, up
from hse.domain.errors import DomainError
from hse.embedded.account import EmbeddedServerError
from hse.settings import SettingsError
from hse.simulation.identities import NotIdentities
from hse.simulation.meters import SamplesMissing
from hse.supervision.published import AlreadyRunning, NotRunning
from hse.supervision.supervisor import ChildDoesNotStart

app = typer.Typer(
    name="hse",
    help="HSE: from a device's socket to a durable, stored event.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("up")(up.up)
app.command("migrate")(processes.migrate)
app.command("ingest")(processes.ingest)
app.command("worker")(processes.worker)
app.add_typer(devices.app, name="devices")
app.command("simulate")(simulate.simulate)
app.command("events")(events.events)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(journal.app, name="journal")
app.command("doctor")(doctor.doctor)

EXPECTED = (
    AlreadyRunning,
    ChildDoesNotStart,
    DomainError,
    EmbeddedServerError,
    MigrationsMissing,
    NotIdentities,
    NotRunning,
    SamplesMissing,
)


def main() -> NoReturn:
    """Run the command line. What a user can mend is told in one line; anything else is a defect and shows its trace."""
    try:
        app()
    except SettingsError as error:
        for mistake in error.mistakes:
            print(f"hse: {mistake}", file=sys.stderr)
        sys.exit(2)
    except EXPECTED as error:
        print(f"hse: {error}", file=sys.stderr)
    except sa.exc.OperationalError as error:
        print(f"hse: the database does not answer: {str(error.orig).strip()}", file=sys.stderr)
    except sa.exc.ProgrammingError as error:
        print(f"hse: the database refuses: {str(error.orig).strip()}; has `hse migrate` run?", file=sys.stderr)
    sys.exit(1)
