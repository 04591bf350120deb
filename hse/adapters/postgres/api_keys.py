"""API keys in the database, and how often they are used."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from hse.adapters.postgres.identity_tables import api_keys, users
from hse.adapters.postgres.reach import OwnerScope
from hse.adapters.postgres.stores import TableStore, plain
from hse.adapters.tokens import new_key
from hse.domain.identity.api_keys import ApiKey, IssuedApiKey
from hse.domain.policy import Reach
from hse.domain.work import Record

FLUSH_SECONDS = 5.0
# Of one key in one interval: who uses a key from more places has them written down one interval later.
ADDRESSES_MAX = 100
NOTE_USES = sa.text("select hse_note_api_key_uses(cast(:uses as jsonb))")
OWNER_SCOPE = OwnerScope(users.c.partner_company_id, users.c.organization_id)

logger = structlog.get_logger(__name__)


class _ScopeOfOwner:
    """A key is where its owner is."""

    def within(self, reach: Reach) -> sa.ColumnElement[bool]:
        if reach.is_everything:
            return sa.true()
        return api_keys.c.user_id.in_(sa.select(users.c.id).where(OWNER_SCOPE.within(reach)))


class ApiKeys(TableStore[ApiKey]):
    """The keys."""

    entity = "api_key"
    table = api_keys
    view = ApiKey
    scope = _ScopeOfOwner()
    sorts = ("created_at", "name")

    async def count_live(self, user_id: UUID, now: datetime) -> int:
        """How many keys of a user can be used."""
        expires_at = api_keys.c.expires_at
        is_live = (api_keys.c.revoked_at.is_(None), sa.or_(expires_at.is_(None), expires_at > now))
        statement = sa.select(sa.func.count()).select_from(api_keys).where(api_keys.c.user_id == user_id, *is_live)
        return int((await self._connection.execute(statement)).scalar_one())

    async def issue(self, values: Mapping[str, Any]) -> IssuedApiKey:
        """Add a key with a new secret."""
        made = new_key()
        after = await self.add({**values, "prefix": made.prefix, "secret_hash": made.secret_hash})
        return IssuedApiKey(api_key=after, key=made.text)

    async def revoke(self, key: ApiKey, now: datetime) -> None:
        """End a key."""
        statement = (
            sa.update(api_keys)
            .where(api_keys.c.id == key.id, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=now)
            .returning(*self.columns())
        )
        row = (await self._execute(statement)).one_or_none()
        if row is not None:
            await self._record("revoke", key, self._view(row))

    async def _record(self, verb: str, before: ApiKey | None, after: ApiKey | None) -> None:
        """Written where its owner belongs, so that those who look after him read it."""
        key: Any = before or after
        owner = sa.select(users.c.partner_company_id, users.c.organization_id).where(users.c.id == key.user_id)
        row = (await self._connection.execute(owner)).one()
        record = Record(
            action=f"{self.entity}.{verb}",
            entity_type=self.entity,
            entity_id=str(key.id),
            partner_company_id=row.partner_company_id,
            organization_id=row.organization_id,
            before=plain(before),
            after=plain(after),
        )
        await self._transaction.record(record)


@dataclass(slots=True)
class _Uses:
    """The uses of one key that are not in the database yet."""

    count: int
    last_used_at: datetime
    addresses: set[str] = field(default_factory=set)


class ApiKeyUses:
    """Counts the uses of keys in memory and writes them down every few seconds, in one statement.

    A row that every request changed would make the requests of one key wait for each other. What is counted and not written when
    the process is killed is lost; when it is stopped, it is written.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._waiting: dict[UUID, _Uses] = {}

    def note(self, api_key_id: UUID, address: str | None, now: datetime) -> None:
        """Count a use."""
        uses = self._waiting.setdefault(api_key_id, _Uses(0, now))
        uses.count += 1
        uses.last_used_at = max(uses.last_used_at, now)
        if address is not None and len(uses.addresses) < ADDRESSES_MAX:
            uses.addresses.add(address)

    async def flush(self) -> None:
        """Write down what was counted; what cannot be written now stays counted."""
        taken, self._waiting = self._waiting, {}
        if not taken:
            return
        uses = [
            {
                "id": api_key_id,
                "uses": one.count,
                "last_used_at": one.last_used_at,
                "addresses": sorted(one.addresses),
            }
            for api_key_id, one in sorted(taken.items())
        ]
        try:
            async with self._engine.begin() as connection:
                await connection.execute(NOTE_USES, {"uses": msgspec.json.encode(uses).decode()})
        except (sa.exc.SQLAlchemyError, OSError) as error:
            logger.warning("uses of API keys wait to be written down", error=type(error).__name__)
            self._give_back(taken)
        except asyncio.CancelledError:
            self._give_back(taken)
            raise

    async def flush_for_ever(self) -> None:
        """Write down what was counted every few seconds, until it is cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    def _give_back(self, taken: dict[UUID, _Uses]) -> None:
        for api_key_id, one in taken.items():
            uses = self._waiting.setdefault(api_key_id, _Uses(0, one.last_used_at))
            uses.count += one.count
            uses.last_used_at = max(uses.last_used_at, one.last_used_at)
            uses.addresses |= one.addresses
