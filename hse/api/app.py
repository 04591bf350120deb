"""The application: what it is made of, in the order in which a request meets it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import anyio
from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.routes import HTTPRoute

from hse.adapters.limits import LocalRateLimiter, RateLimiter
from hse.adapters.link import NodeLink
from hse.adapters.postgres.api_keys import ApiKeyUses
from hse.adapters.postgres.database import Database
from hse.adapters.postgres.listening import Listener
from hse.adapters.sealing import Sealer
from hse.adapters.sheets import READ_AT_ONCE_MAX
from hse.adapters.tokens import AccessTokens
from hse.api import document, health
from hse.api.acting import add_etag, provide_acting, provide_once, provide_version
from hse.api.booking_watches import BookingWatches
from hse.api.bounds import REQUEST_BYTES_MAX, BoundedRequest, RequestBounds
from hse.api.entrance import Doorkeeping, provide_entrance
from hse.api.graphql.schema import GraphQLEndpoint
from hse.api.history import History
from hse.api.limits import RateLimits, RequestLimits
from hse.api.live import live_streams, running
from hse.api.metrics import Metrics, metrics
from hse.api.openapi import openapi_config
from hse.api.options import AllowedMethods
from hse.api.paging import provide_page, refuse_lax
from hse.api.problems import EXCEPTION_HANDLERS
from hse.api.requests import RequestLog
from hse.api.rest import (
    alarms,
    api_keys,
    audit,
    auth,
    availability,
    booking_calendars,
    booking_notifications,
    booking_settings,
    bookings,
    dead_letters,
    device_attributes,
    device_claims,
    device_commands,
    device_profiles,
    devices,
    door_codes,
    guests,
    imports,
    invitations,
    live,
    me,
    onboarding,
    organizations,
    provisioning_keys,
    roles,
    sessions,
    telemetry,
    users,
)
from hse.api.security import RequestContext, cors_config, require_principal
from hse.api.sockets import Sockets
from hse.api.waiting import Waiting
from hse.domain.work import values_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the application is wired from. The database is opened within the event loop that serves."""

    open_database: Callable[[], Database]
    # Without it, requests that wait look again every now and then.
    open_listener: Callable[[], Listener] | None = None
    # How live streams hear the ingest nodes; without it they tell of alarms only.
    open_link: Callable[[], NodeLink] | None = None
    sealer: Sealer
    tokens: AccessTokens
    doorkeeping: Doorkeeping
    # Origins of web pages that may call, beside the api's own.
    trusted_origins: frozenset[str] = frozenset()
    limiter: RateLimiter = field(default_factory=LocalRateLimiter)
    limits: RequestLimits = field(default_factory=RequestLimits)
    history: History = field(default_factory=History)
    # Of other sites' pages, these may read what is answered.
    cors_origins: tuple[str, ...] = ()
    metrics_token: str | None = field(default=None, repr=False)


def create_app(parts: Parts) -> Litestar:
    """The ASGI application."""
    return furnish(build(parts.cors_origins), parts)


def build(cors_origins: tuple[str, ...] = ()) -> Litestar:
    """What does not depend on its parts: every handler, and what stands before them."""
    app = Litestar(
        route_handlers=[rest_router(), GraphQLEndpoint, health.router, metrics, *document.handlers()],
        lifespan=[life],
        middleware=[RequestBounds(), RateLimits()],
        guards=[require_principal],
        exception_handlers=EXCEPTION_HANDLERS,
        request_class=BoundedRequest,
        request_max_body_size=REQUEST_BYTES_MAX,
        cors_config=cors_config(cors_origins),
        openapi_config=openapi_config(),
        logging_config=None,
    )
    resolve_one_by_one(app)
    # Around everything, so that a refusal, and the answer to a path that does not exist, has its headers, too.
    app.asgi_handler = RequestContext()(RequestLog()(AllowedMethods(app)(app.asgi_handler)))
    return app


def furnish(app: Litestar, parts: Parts) -> Litestar:
    """Give the application its parts, and nothing of what it had before. Before it starts."""
    file_readers = anyio.CapacityLimiter(READ_AT_ONCE_MAX)
    made = {"metrics": Metrics(), "waiting": Waiting(), "file_readers": file_readers, "readings": health.Readings()}
    app.state = State({**values_of(parts), **made})
    return app


def rest_router() -> Router:
    """Every noun over REST."""
    return Router(
        path="/api/v1",
        route_handlers=[
            auth.router,
            me.router,
            sessions.router,
            organizations.router,
            roles.router,
            users.router,
            invitations.router,
            onboarding.router,
            devices.router,
            device_profiles.router,
            device_attributes.router,
            provisioning_keys.router,
            device_claims.router,
            device_commands.router,
            telemetry.router,
            dead_letters.router,
            imports.router,
            alarms.router,
            guests.router,
            bookings.router,
            booking_settings.router,
            booking_calendars.router,
            availability.router,
            door_codes.router,
            booking_notifications.router,
            live.router,
            api_keys.router,
            audit.router,
        ],
        dependencies={
            "acting": Provide(provide_acting),
            "entrance": Provide(provide_entrance),
            "once": Provide(provide_once),
            "page": Provide(provide_page),
            "version": Provide(provide_version),
        },
        before_request=refuse_lax,
        after_request=add_etag,
    )


def resolve_one_by_one(app: Litestar) -> None:
    """Have what handlers ask for made one after the other.

    Litestar makes what does not need one another at the same time, as tasks of a group. Nothing of ours waits there for anything,
    and the group costs more than all of it.
    """
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for _, model in route.route_handler_map.values():
                model.dependency_batches = [
                    {one} for batch in model.dependency_batches for one in sorted(batch, key=lambda one: one.key)
                ]


@asynccontextmanager
async def life(app: Litestar) -> AsyncIterator[None]:
    """What is opened before the first request, and closed after the last one."""
    state = app.state
    database: Database = state.open_database()
    state.database = database
    state.metrics.read_when_asked(
        "hse_api_database_connections", "Connections of the pool.", database.connections, "state"
    )
    state.metrics.read_when_asked(
        "hse_api_history_cache_lookups_total",
        "Devices' aggregates that were looked up in the cache, since the start.",
        lambda: state.history.cache.results,
        "result",
    )
    await health.warn_at_start(database)
    uses = state.api_key_uses = ApiKeyUses(database.engine)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(state.history.close)
        stack.push_async_callback(state.limiter.close)
        stack.push_async_callback(database.close)
        stack.push_async_callback(uses.flush)
        await stack.enter_async_context(running(uses.flush_for_ever()))
        listener: Listener | None = None if state.open_listener is None else state.open_listener()
        link = state.link = None if state.open_link is None else state.open_link()
        state.live = await stack.enter_async_context(live_streams(database, listener, link, state.metrics))
        watches = state.booking_watches = BookingWatches()
        stack.callback(watches.end_all)
        sockets = state.sockets = Sockets(database)
        await stack.enter_async_context(running(sockets.look_for_ever()))
        if listener is not None:
            listener.subscribe("hse_bookings", watches.hear)
            listener.subscribe("hse_scopes", watches.hear_scopes)
            listener.subscribe("hse_scopes", sockets.hear_scopes)
            listener.subscribe("hse_command_changed", state.waiting.hear)
            await stack.enter_async_context(running(listener.run()))
        yield
