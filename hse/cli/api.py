"""`hse api`: the control plane over HTTP."""

import asyncio
import gc
import os
import sys
from contextlib import suppress
from types import FrameType

import uvicorn
from litestar import Litestar

from hse.api.app import create_app
from hse.api.logs import configure_logs
from hse.cli.files import take_all_files
from hse.settings import read_settings
from hse.wiring.api import compose_api, server_options

STARTUP_FAILED = 3


def api() -> None:
    """Serve REST and GraphQL until SIGTERM or Ctrl-C."""
    settings = read_settings(os.environ)
    configure_logs(settings.log_level, sys.stderr)
    take_all_files()
    app = create_app(compose_api(settings))
    # What was made up to here lives until the end: no collection needs to look through it again, which would hold up all requests.
    gc.collect()
    gc.freeze()
    server = Server(uvicorn.Config(app, **server_options(settings)), app)
    server.run()
    if not server.started:
        raise SystemExit(STARTUP_FAILED)


class Server(uvicorn.Server):
    """Tells live streams that it ends before it waits for the last answers: they would never end by themselves."""

    def __init__(self, config: uvicorn.Config, app: Litestar) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or Ctrl-C, in the main thread, wherever the event loop is just now."""
        live = self._app.state.get("live")
        with suppress(RuntimeError):
            if live is not None:
                asyncio.get_running_loop().call_soon_threadsafe(live.end_all)
        super().handle_exit(sig, frame)
