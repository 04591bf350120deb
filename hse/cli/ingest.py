"""`hse ingest`: the data plane's process. It imports next to nothing, so that a killed core is back in a moment."""

import contextlib
import json
import signal

import typer

from hse._ingest_core import Core
from hse.cli.files import take_all_files
from hse.cli.options import DataDir, settings_with
from hse.failure import Failure
from hse.settings import SettingsError

STOP_POLL_MS = 200


def ingest(data_dir: DataDir = None) -> None:
    """Run the ingest core until SIGTERM or Ctrl-C, then drain. Logs are JSON lines on stderr."""
    try:
        core = Core(settings_with(data_dir).ingest_config_json())
    except ValueError as error:
        raise SettingsError(str(error).splitlines()) from error

    take_all_files()

    def request_stop(*_: object) -> None:
        core.request_stop()

    # Python owns the signals; the core's threads never run Python, so this loop is what lets a handler run.
    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGINT, request_stop)
    try:
        ports = core.start()
    except (OSError, RuntimeError) as error:
        raise Failure(f"the ingest core does not start: {error}") from error
    # A disk that is full, where this leads to a file on it, keeps no device out.
    with contextlib.suppress(OSError):
        print(json.dumps({"ports": ports}), flush=True)
    while not core.wait(STOP_POLL_MS):
        pass
    raise typer.Exit(core.join())
