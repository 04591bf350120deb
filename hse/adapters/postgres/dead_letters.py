"""Dead letters: sent round again or given up by an operator, counted and shown at their device, bounded."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from hse.adapters.postgres.pages import encode_cursor, parse_order
from hse.adapters.postgres.reading import Reading
from hse.adapters.postgres.tables import Timestamptz, dead_letters
from hse.domain.paging import Page, PageQuery
from hse.domain.telemetry.dead_letters import (
    CONTENT_CHARS_MAX,
    COUNTED_MAX,
    DeadLetterSummary,
    DeviceDeadLetter,
)

DeadLetterStatus = Literal["pending", "permanent", "discarded"]

# Of a device, of what can never become an event (`bad_payload`): a week of one a minute.
UNREADABLE_MAX = 10_000
LETTERS_PER_BITE = 5_000
# What is larger is not looked into.
CONTENT_BYTES_MAX = 16 * 1024
REASON_CHARS_MAX = 200
EVENT_FIELDS = ("time", "type", "value", "unit", "metadata", "device_id")

# Each device by itself, from an index that has all that is counted, and no further than the last one that counts.
SUMMARIES = (
    sa.text(
        """
    select asked.device_id, counted.num_pending, counted.num_permanent, counted.has_more,
           least(coalesce(removed.num_removed, 0), 2147483647) as num_removed,
           last.code as last_code, left(split_part(last.reason, E'\\n', 1), :reason_chars) as last_reason,
           last.received_at as last_received_at
      from unnest(:ids) with ordinality as asked (device_id, place)
     cross join lateral (
           select count(*) filter (where number <= :counted and status = 'pending') as num_pending,
                  count(*) filter (where number <= :counted and status = 'permanent') as num_permanent,
                  count(*) > :counted as has_more
             from (select status, row_number() over (order by received_at desc, id desc) as number
                     from named_dead_letters where device_id = asked.device_id
                    order by received_at desc, id desc limit :counted + 1) newest
           ) counted
      left join lateral (
           select code, reason, received_at from named_dead_letters where device_id = asked.device_id
            order by received_at desc, id desc limit 1
           ) last on true
      left join named_dead_letter_removals removed on removed.device_id = asked.device_id
     order by asked.place
    """
    )
    .bindparams(sa.bindparam("ids", type_=ARRAY(sa.Uuid())))
    .execution_options(is_kept=True)
)

PAGE = (
    sa.text(
        """
    select id, device_id, received_at, source, status, code, reason, octet_length(event) as num_bytes,
           case when octet_length(event) <= :content_bytes then event end as event
      from named_dead_letters
     where device_id = :device_id and (received_at, id) < (:after, cast(:after_id as bigint))
     order by received_at desc, id desc limit :rows
    """
    )
    .bindparams(sa.bindparam("device_id", type_=sa.Uuid), sa.bindparam("after", type_=Timestamptz))
    .execution_options(is_kept=True)
)
ORDER = {"received_at": dead_letters.c.received_at}
BEFORE_ALL = (datetime.max.replace(tzinfo=UTC), 2**63 - 1)

# What a worker has in hand, or a node tries again, is left for the next time.
REMOVE = sa.text(
    """
    with crowd as (
        select device_id from dead_letters where status <> 'discarded' and code = 'bad_payload'
         group by device_id having count(*) > :most
    ), too_many as (
        select letter.id from crowd cross join lateral (
               select id from dead_letters
                where device_id = crowd.device_id and status <> 'discarded' and code = 'bad_payload'
                order by received_at desc, id desc offset :most limit :bite) letter
         limit :bite
    ), too_old as (
        select id from (
               select id, received_at from dead_letters where status <> 'pending' order by id limit :bite) oldest
         where received_at < :before
    ), taken as (
        select id from dead_letters where id in (select id from too_many union select id from too_old)
         order by id for update skip locked
    ), removed as (
        delete from dead_letters where id in (select id from taken) returning device_id
    ), noted as (
        insert into dead_letter_removals as kept (device_id, num_removed, removed_at)
        select device_id, count(*), :now from removed group by device_id order by device_id
        on conflict (device_id) do update
           set num_removed = kept.num_removed + excluded.num_removed, removed_at = excluded.removed_at
    )
    select count(*) from removed
    """
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A refused event; `event` is the MessagePack array as it came, `device_id` the device whose epoch and seq it has."""

    id: int
    device_id: UUID
    epoch: int
    seq: int
    received_at: datetime
    code: str
    reason: str
    event: bytes
    status: DeadLetterStatus
    attempts: int
    next_attempt_at: datetime | None
    # None in what an older release kept.
    source: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """Which dead letters; None means any. Discarded ones are meant only when `ids` or `status` names them."""

    ids: Collection[int] | None = None
    device_id: UUID | None = None
    code: str | None = None
    status: DeadLetterStatus | None = None


def list_dead_letters(connection: sa.Connection, wanted: DeadLetterFilter, *, limit: int = 100) -> list[DeadLetter]:
    """The oldest `limit` of the wanted dead letters, in the order they came."""
    columns = [dead_letters.c[name] for name in DeadLetter.__slots__]
    statement = sa.select(*columns).where(*_conditions(wanted)).order_by(dead_letters.c.id).limit(limit)
    return [DeadLetter(**row) for row in connection.execute(statement).mappings()]


def requeue(connection: sa.Connection, wanted: DeadLetterFilter) -> int:
    """Has the wanted ones tried again now, with all their attempts; returns how many."""
    return connection.execute(
        sa.update(dead_letters)
        .where(*_conditions(wanted))
        .values(status="pending", attempts=0, next_attempt_at=sa.func.now())
    ).rowcount


def discard(connection: sa.Connection, wanted: DeadLetterFilter) -> int:
    """Gives the wanted ones up; returns how many. They stay as rows for as long as events do: none just vanishes."""
    return connection.execute(
        sa.update(dead_letters)
        .where(*_conditions(wanted), dead_letters.c.status != "discarded")
        .values(status="discarded", next_attempt_at=None)
    ).rowcount


def _conditions(wanted: DeadLetterFilter) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if wanted.ids is not None:
        conditions.append(dead_letters.c.id.in_(wanted.ids))
    if wanted.device_id is not None:
        conditions.append(dead_letters.c.device_id == wanted.device_id)
    if wanted.code is not None:
        conditions.append(dead_letters.c.code == wanted.code)
    if wanted.status is not None:
        conditions.append(dead_letters.c.status == wanted.status)
    elif wanted.ids is None:
        conditions.append(dead_letters.c.status != "discarded")
    return conditions


def remove_excess(engine: sa.Engine, *, now: datetime, retention: timedelta) -> int:
    """Delete what is as old as events are when they are dropped, and what could never become one where a device has sent too much
    of it, the oldest first; returns how many. What was deleted is counted at its device.
    """
    parameters = {"most": UNREADABLE_MAX, "bite": LETTERS_PER_BITE, "now": now, "before": now - retention}
    num_removed_all = 0
    while True:
        with engine.begin() as connection:
            num_removed: int = connection.execute(REMOVE, parameters).scalar_one()
        num_removed_all += num_removed
        if num_removed < LETTERS_PER_BITE:
            return num_removed_all


class DeadLetters:
    """The dead letters of named devices (`hse.adapters.postgres.history`), but those that an operator discarded."""

    def __init__(self, connection: AsyncConnection | Reading) -> None:
        self._connection = connection

    async def summaries(self, device_ids: Sequence[UUID]) -> list[DeadLetterSummary]:
        """How many each of these has, in their order."""
        parameters = {"ids": list(device_ids), "counted": COUNTED_MAX, "reason_chars": REASON_CHARS_MAX}
        rows = await self._connection.execute(SUMMARIES, parameters)
        return [DeadLetterSummary(**row._mapping) for row in rows]

    async def page(self, device_id: UUID, query: PageQuery) -> Page[DeviceDeadLetter]:
        """A page of a device's, the newest first. Raises `Invalid`."""
        order = parse_order(query, ORDER, "-received_at", dead_letters.c.id)
        after, after_id = order.after or BEFORE_ALL
        parameters = {
            "device_id": device_id,
            "after": after,
            "after_id": after_id,
            "rows": query.limit + 1,
            "content_bytes": CONTENT_BYTES_MAX,
        }
        rows = (await self._connection.execute(PAGE, parameters)).all()
        next_cursor = None
        if len(rows) > query.limit:
            last = rows[query.limit - 1]
            next_cursor = encode_cursor(order, last.received_at, last.id)
        return Page(items=[_shown(row) for row in rows[: query.limit]], next_cursor=next_cursor)


def _shown(row: sa.Row[Any]) -> DeviceDeadLetter:
    topic, content = (None, None) if row.event is None else content_of(row.event)
    return DeviceDeadLetter(
        id=str(row.id),
        device_id=row.device_id,
        received_at=row.received_at,
        source=row.source,
        status=row.status,
        code=row.code,
        reason=row.reason,
        topic=topic,
        content=None if content is None else content[:CONTENT_CHARS_MAX],
        is_whole=content is not None and len(content) <= CONTENT_CHARS_MAX,
        num_bytes=row.num_bytes,
    )


def content_of(event: bytes) -> tuple[str | None, str]:
    """Where a message was sent to, and itself, as text; of an event that was understood and not stored no topic, and its JSON.

    It is here because something is wrong with it: what is neither is shown in hexadecimal.
    """
    try:
        match msgspec.msgpack.decode(event):
            # As the core keeps what it cannot understand (`ingest-core/src/pipeline/unreadable.rs`).
            case [None, "unreadable", None, None, {"topic": str(topic), "payload": bytes(payload)}]:
                return topic, payload.decode("utf-8", errors="backslashreplace")
            case [*values]:
                named = dict(zip(EVENT_FIELDS, values, strict=False))
                return None, msgspec.json.encode(named).decode()
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        pass
    return None, event.hex()
