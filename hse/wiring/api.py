"""Settings become the application."""

from functools import partial

from hse.adapters.postgres.database import Database
from hse.adapters.sealing import Sealer
from hse.adapters.tokens import AccessTokens
from hse.api.app import Parts
from hse.settings import Settings, SettingsError


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
    return Parts(
        open_database=partial(Database, database_url, pool_size=settings.api_pool_size),
        sealer=Sealer(settings.secret_key),
        tokens=AccessTokens(settings.secret_key),
    )
