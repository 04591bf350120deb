"""The application: what it is made of, in the order in which a request meets it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig

from hse.adapters.limits import LocalRateLimiter, RateLimiter
from hse.adapters.postgres.database import Database
from hse.adapters.sealing import Sealer
from hse.adapters.tokens import AccessTokens
from hse.api import health
from hse.api.acting import add_etag, provide_acting, provide_once, provide_version
from hse.api.entrance import Doorkeeping, provide_entrance
from hse.api.graphql.schema import GraphQLEndpoint
from hse.api.paging import provide_page
from hse.api.problems import EXCEPTION_HANDLERS
from hse.api.rest import auth, devices, me, organizations
from hse.api.security import RequestContext, require_principal

REQUEST_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the application is wired from. The database is opened within the event loop that serves."""

    open_database: Callable[[], Database]
    sealer: Sealer
    tokens: AccessTokens
    doorkeeping: Doorkeeping
    limiter: RateLimiter = field(default_factory=LocalRateLimiter)
    # Origins of web pages that may call, beside the api's own.
    trusted_origins: frozenset[str] = frozenset()


def create_app(parts: Parts) -> Litestar:
    """The ASGI application."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        app.state.database = parts.open_database()
        try:
            yield
        finally:
            await app.state.database.close()
            await parts.limiter.close()

    rest = Router(
        path="/api/v1",
        route_handlers=[auth.router, me.router, organizations.router, devices.router],
        dependencies={
            "acting": Provide(provide_acting),
            "entrance": Provide(provide_entrance),
            "once": Provide(provide_once),
            "page": Provide(provide_page),
            "version": Provide(provide_version),
        },
        after_request=add_etag,
    )
    return Litestar(
        route_handlers=[rest, GraphQLEndpoint, health.router],
        lifespan=[lifespan],
        state=State(
            {
                "sealer": parts.sealer,
                "tokens": parts.tokens,
                "doorkeeping": parts.doorkeeping,
                "limiter": parts.limiter,
                "trusted_origins": parts.trusted_origins,
            }
        ),
        middleware=[RequestContext(parts.tokens)],
        guards=[require_principal],
        exception_handlers=EXCEPTION_HANDLERS,
        request_max_body_size=REQUEST_BYTES_MAX,
        openapi_config=OpenAPIConfig(title="HSE", version="1", use_handler_docstrings=True, path="/docs"),
        logging_config=None,
    )
