"""`hse api`: the control plane over HTTP."""

import gc
import os
import sys

import uvicorn

from hse.api.app import create_app
from hse.api.logs import configure_logs
from hse.settings import read_settings
from hse.wiring.api import compose_api, server_options


def api() -> None:
    """Serve REST and GraphQL until SIGTERM or Ctrl-C."""
    settings = read_settings(os.environ)
    configure_logs(settings.log_level, sys.stderr)
    app = create_app(compose_api(settings))
    # What was made up to here lives until the end: no collection needs to look through it again, which would hold up all requests.
    gc.collect()
    gc.freeze()
    uvicorn.run(app, **server_options(settings))
