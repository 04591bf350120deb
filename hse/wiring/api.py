"""Settings become the application."""

from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from hse.adapters.guarded_redis import GuardedRedis
from hse.adapters.history_cache import RedisHistoryCache
from hse.adapters.ingest import IngestNodes, NodeCredentials
from hse.adapters.limits import LocalRateLimiter, RedisRateLimiter
from hse.adapters.link import NodeLink
from hse.adapters.live_states import RedisLiveStates
from hse.adapters.nodes import NodeDirectory
from hse.adapters.passwords import Argon2Passwords
from hse.adapters.postgres.database import Database
from hse.adapters.postgres.listening import Listener
from hse.adapters.postgres.mail import Outbox
from hse.adapters.sealing import Sealer
from hse.adapters.tokens import AccessTokens, CsrfTokens, RefreshTokenMaker
from hse.adapters.totp import TotpFactor
from hse.api.app import Parts
from hse.api.bounds import REQUEST_BYTES_MAX
from hse.api.crowding import protocol_for
from hse.api.entrance import Doorkeeping
from hse.api.history import History
from hse.api.limits import RequestLimits
from hse.settings import Settings, SettingsError
from hse.wiring.worker import node_credentials

# Open requests get this long to end; subscriptions and streams are told to come back.
GRACE_SECONDS = 10
CONNECTIONS_WAITING = 2048
OWN_MACHINE = ("localhost", "127.0.0.1", "::1")


def compose_api(settings: Settings) -> Parts:
    """Wire the control plane; raise `SettingsError` when what it needs is not set."""
    database_url = settings.api_database_url or settings.database_url
    missing = []
    if database_url is None:
        missing.append("HSE_API_DATABASE_URL or HSE_DATABASE_URL is not set")
    if settings.secret_key is None:
        missing.append(
            "HSE_SECRET_KEY is not set: `openssl rand -hex 32` makes one; keep it, and give it to every process"
        )
    if database_url is None or settings.secret_key is None:
        raise SettingsError(missing)
    sealer = Sealer(settings.secret_key)
    outbox = Outbox(
        sealer=sealer,
        public_url=public_url_of(settings),
        invitation_lifetime=timedelta(days=settings.invitation_days),
    )
    return Parts(
        open_database=partial(Database, database_url, pool_size=settings.api_pool_size, outbox=outbox),
        open_listener=partial(Listener, database_url),
        open_link=partial(open_link, settings),
        sealer=sealer,
        tokens=AccessTokens(settings.secret_key),
        doorkeeping=compose_doorkeeping(settings.secret_key, public_url=settings.public_url),
        trusted_origins=frozenset((*settings.cors_origins, *_origin(settings.public_url))),
        limiter=LocalRateLimiter() if settings.redis_url is None else RedisRateLimiter(settings.redis_url),
        limits=RequestLimits(
            address_per_minute=settings.rate_limit_address_per_minute,
            user_per_minute=settings.rate_limit_user_per_minute,
            key_per_minute_max=settings.rate_limit_key_per_minute_max,
        ),
        history=compose_history(settings.redis_url),
        cors_origins=settings.cors_origins,
        metrics_token=settings.metrics_token,
    )


def server_options(settings: Settings) -> dict[str, Any]:
    """How uvicorn serves the application."""
    return {
        "host": settings.bind_host,
        "port": settings.api_port,
        "http": protocol_for(settings.api_connections_max),
        "ws_max_size": REQUEST_BYTES_MAX,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "lifespan": "on",
        "backlog": CONNECTIONS_WAITING,
        "timeout_graceful_shutdown": GRACE_SECONDS,
        "forwarded_allow_ips": list(settings.trusted_proxies),
        "proxy_headers": bool(settings.trusted_proxies),
    }


def compose_history(redis_url: str | None) -> History:
    """Wire what stands beside the database when the history is read."""
    if redis_url is None:
        return History()
    return History(
        cache=RedisHistoryCache(GuardedRedis(redis_url, purpose="history cache")),
        states=RedisLiveStates(GuardedRedis(redis_url, purpose="device states")),
    )


def open_link(settings: Settings) -> NodeLink:
    """How this process hears the ingest nodes; to be called in the event loop that serves."""
    credentials = node_credentials(settings) or NodeCredentials()
    return NodeLink(
        directory=NodeDirectory(settings.redis_url, fixed=settings.ingest_nodes), ingest=IngestNodes(credentials)
    )


def compose_doorkeeping(secret_key: str, *, public_url: str | None = None) -> Doorkeeping:
    """Wire what signing in needs. Cookies go over TLS only, unless people open the api on their own machine."""
    parts = urlsplit(public_url or "")
    return Doorkeeping(
        passwords=Argon2Passwords(),
        tokens=AccessTokens(secret_key),
        refresh_tokens=RefreshTokenMaker(secret_key),
        csrf_tokens=CsrfTokens(secret_key),
        second_factor=TotpFactor(Sealer(secret_key), secret_key),
        has_secure_cookies=not (parts.scheme == "http" and parts.hostname in OWN_MACHINE),
    )


def _origin(public_url: str | None) -> tuple[str, ...]:
    parts = urlsplit(public_url or "")
    return (f"{parts.scheme}://{parts.netloc}",) if parts.netloc else ()


def public_url_of(settings: Settings) -> str:
    """The address that links in letters lead to; this machine's own where none is set."""
    return settings.public_url or f"http://localhost:{settings.api_port}"
