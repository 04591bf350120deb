"""`hse api`: the control plane over HTTP."""

import gc
import os
import sys

import uvicorn

from hse.api.app import create_app
from hse.api.bounds import REQUEST_BYTES_MAX, BoundedHttpProtocol
from hse.api.logs import configure_logs
from hse.settings import read_settings
from hse.wiring.api import compose_api

# Open requests get this long to end; subscriptions and streams are told to come back.
GRACE_SECONDS = 10
CONNECTIONS_WAITING = 2048


def api() -> None:
    """Serve REST and GraphQL until SIGTERM or Ctrl-C."""
    settings = read_settings(os.environ)
    configure_logs(settings.log_level, sys.stderr)
    app = create_app(compose_api(settings))
    # What was made up to here lives until the end: no collection needs to look through it again, which would hold up all requests.
    gc.collect()
    gc.freeze()
    uvicorn.run(
        app,
        host=settings.bind_host,
        port=settings.api_port,
        http=BoundedHttpProtocol,
        ws_max_size=REQUEST_BYTES_MAX,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        backlog=CONNECTIONS_WAITING,
        timeout_graceful_shutdown=GRACE_SECONDS,
        forwarded_allow_ips=list(settings.trusted_proxies),
        proxy_headers=bool(settings.trusted_proxies),
    )
