"""Reading the events and their aggregates, for the control plane.

The api has no right on any of them. It reads views that show the events of *named* devices, and `Telemetry.name` is the one place
that names: the policy's reach is in its WHERE, and the function that it calls takes only what row-level security shows
besides. So there is no query of the history that is not scoped: one that forgets its devices reads those that were named, and one
that comes before any were named reads nothing. `tests/api/test_history_isolation.py` holds this.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from hse.adapters.postgres import history_statements as statements
from hse.adapters.postgres.reach import UUIDS, AnyReach, SiteScope, parameters_of
from hse.adapters.postgres.reading import Reading
from hse.adapters.postgres.tables import device_profiles, devices, establishments
from hse.adapters.postgres.telemetry import event_of
from hse.domain.errors import Invalid
from hse.domain.paging import Page
from hse.domain.policy import EVERYWHERE, Reach
from hse.domain.telemetry.buckets import Reaches, Span
from hse.domain.telemetry.model import Event
from hse.domain.telemetry.partials import Partial
from hse.domain.telemetry.ports import EventQuery, LateHours, Moment, NamedDevice, Parts, PartsQuery

# A device's clock may be ahead by a day; the core refuses more.
AHEAD_MAX = timedelta(hours=25)
# A page is looked for in the newest day first, then in ever longer stretches: most pages are full after the first, and the database
# need not look at every partition for them.
FIRST_STRETCH = timedelta(days=1)
STRETCH_GROWTH = 8

SCOPE = SiteScope(devices.c.organization_id, devices.c.establishment_id)
SEE, READ = AnyReach(prefix="see"), AnyReach(prefix="read")


class Telemetry:
    """The events of named devices, and their aggregates."""

    def __init__(self, connection: AsyncConnection | Reading) -> None:
        self._connection = connection

    async def name(
        self, device_ids: Sequence[UUID], *, see: Reach, read: Reach, with_expected: bool = False
    ) -> list[NamedDevice]:
        """Those of the devices that lie within `see`. Those within `read`, too, are named: until others are, they can be read."""
        statement = _naming(
            sees_everything=see.is_everything, reads_everything=read.is_everything, with_expected=with_expected
        )
        parameters = {"ids": sorted(device_ids), **parameters_of(see, SEE), **parameters_of(read, READ)}
        connection = self._connection
        # Where each statement is a transaction of its own, this one belongs to those that follow.
        run = connection.execute_first if isinstance(connection, Reading) else connection.execute
        rows = await run(statement, parameters)
        return [
            NamedDevice(
                id=row.id,
                timezone=row.timezone,
                is_readable=row.is_readable,
                expected_interval_s=row.expected_interval_s,
            )
            for row in rows
            if row.id is not None
        ]

    async def moment(self, device_ids: Sequence[UUID], span: Span) -> Moment:
        """How the history of named devices stands; `late` within the span."""
        parameters = {"ids": list(device_ids), "since": span.since, "until": span.until}
        rows = (await self._connection.execute(statements.MOMENT, parameters)).all()
        reaches = Reaches(hours_until=rows[0].hours_until, days_until=rows[0].days_until, kept_from=rows[0].kept_from)
        late = {
            row.device_id: LateHours(
                hours=tuple(Span(one.lower, one.upper) for one in row.hours),
                marked_by=frozenset(row.marked_by),
            )
            for row in rows
            if row.device_id is not None
        }
        return Moment(reaches=reaches, snapshot=rows[0].snapshot, late=late)

    async def parts(self, query: PartsQuery) -> Mapping[UUID, Parts]:
        """What the events of named devices amount to, by device, type and bucket."""
        found: dict[UUID, dict[str, dict[int, Partial]]] = {}
        built = statements.parts(query)
        if built is None:
            return found
        statement, parameters = built
        connection = self._connection
        if isinstance(connection, Reading):
            rows = await connection.execute(statement, parameters, behind=statements.GROUPING_IN_MEMORY)
        else:
            await connection.execute(statements.GROUPING_IN_MEMORY)
            rows = await connection.execute(statement, parameters)
        for row in rows.all():
            device_id, event_type, number, *part = tuple[Any, ...](row)
            found.setdefault(device_id, {}).setdefault(event_type, {})[number] = Partial._make(part)
        return found

    async def latest(self, device_ids: Sequence[UUID], event_types: Sequence[str], reaches: Reaches) -> list[Event]:
        """The newest event of each named device and type, unless it is older than a year."""
        parameters = {
            "ids": list(device_ids),
            "types": list(event_types) or None,
            "hours_until": reaches.hours_until,
            "days_until": reaches.days_until,
        }
        hours = (await self._connection.execute(statements.NEWEST_HOURS, parameters)).all()
        if not hours:
            return []
        within = {
            "ids": [row.device_id for row in hours],
            "event_types": [row.event_type for row in hours],
            "since": [row.since for row in hours],
            "until": [row.until for row in hours],
            "types": parameters["types"],
            "first": min(row.since for row in hours),
            "last": max(row.until for row in hours),
        }
        return [event_of(row) for row in await self._connection.execute(statements.LATEST, within)]

    async def events(self, query: EventQuery, now: datetime) -> Page[Event]:
        """A page of a named device's events. Raises `Invalid` for a cursor of another list."""
        after = None if query.cursor is None else _decode(query.cursor, query)
        since = query.since or datetime.min.replace(year=1971, tzinfo=UTC)
        until = query.until or now + AHEAD_MAX
        if after is not None and query.is_ascending:
            since = max(since, after[0])
        elif after is not None:
            until = min(until, after[0] + timedelta(microseconds=1))
        rows: list[Event] = []
        num_skipped = 0 if after is None else after[1]
        for stretch in _stretches(since, until, is_ascending=query.is_ascending):
            parameters = {
                "id": query.device_id,
                "types": list(query.event_types) or None,
                "since": stretch.since,
                "until": stretch.until,
                "skipped": num_skipped,
                "limit": query.limit + 1 - len(rows),
            }
            statement = statements.EVENTS_ASCENDING if query.is_ascending else statements.EVENTS_DESCENDING
            rows += [event_of(row) for row in await self._connection.execute(statement, parameters)]
            # The rows that were shown before all lie in the first stretch.
            num_skipped = 0
            if len(rows) > query.limit:
                break
        items = rows[: query.limit]
        cursor = _encode(query, items, after) if len(rows) > query.limit else None
        return Page(items=items, next_cursor=cursor)

    def has_seen(self, snapshot: str, marked_by: frozenset[int]) -> bool:
        """Whether all these transactions were in a snapshot, which PostgreSQL writes as xmin:xmax:those between that are not."""
        xmin, xmax, between = snapshot.split(":")
        unseen = {int(xid) for xid in between.split(",") if xid}
        return all(xid < int(xmin) or (xid < int(xmax) and xid not in unseen) for xid in marked_by)


@cache
def _naming(*, sees_everything: bool, reads_everything: bool, with_expected: bool) -> sa.Select[Any]:
    """The statement that names devices."""
    see, read = EVERYWHERE if sees_everything else SEE, EVERYWHERE if reads_everything else READ
    placed = devices.outerjoin(establishments, establishments.c.id == devices.c.establishment_id)
    expected: sa.ColumnElement[int | None] = sa.cast(sa.null(), sa.Integer)
    if with_expected:
        placed = placed.outerjoin(device_profiles, device_profiles.c.id == devices.c.profile_id)
        # Nobody waits for one that may not connect.
        expected = sa.case((devices.c.is_enabled, device_profiles.c.expected_interval_s))
    seen = (
        sa.select(
            devices.c.id,
            establishments.c.timezone,
            SCOPE.within(read).label("is_readable"),
            expected.label("expected_interval_s"),
        )
        .select_from(placed)
        .where(devices.c.id == sa.any_(sa.bindparam("ids", type_=UUIDS)), SCOPE.within(see))
        .cte("seen")
    )
    readable = sa.select(sa.func.array_agg(seen.c.id)).where(seen.c.is_readable).scalar_subquery()
    planned: list[sa.ColumnElement[str]] = [
        sa.literal_column(f"set_config('{name}', '{value}', true)") for name, value in statements.PLANNING.items()
    ]
    named = sa.select(sa.func.hse_name_devices(readable).label("ids"), *planned).cte("named")
    is_named = sa.func.coalesce(seen.c.id == sa.any_(named.c.ids), sa.false())
    # From `named` on, so that it is called where nothing is seen: what was named before must be forgotten.
    return (
        sa.select(seen.c.id, seen.c.timezone, is_named.label("is_readable"), seen.c.expected_interval_s)
        .select_from(named.outerjoin(seen, sa.true()))
        .order_by(seen.c.id)
        .execution_options(is_kept=True)
    )


def _stretches(since: datetime, until: datetime, *, is_ascending: bool) -> list[Span]:
    found: list[Span] = []
    length = FIRST_STRETCH
    while since < until:
        if until - since <= length:
            found.append(Span(since, until))
            break
        if is_ascending:
            found.append(Span(since, since + length))
            since += length
        else:
            found.append(Span(until - length, until))
            until -= length
        length *= STRETCH_GROWTH
    return found


def _encode(query: EventQuery, items: Sequence[Event], after: tuple[datetime, int] | None) -> str:
    """The cursor behind the last item: its time, and how many of that time were shown. Events have no id of their own."""
    last = items[-1].time
    num_shown = sum(1 for one in items if one.time == last)
    if after is not None and after[0] == last:
        num_shown += after[1]
    text = json.dumps([str(query.device_id), query.is_ascending, last.isoformat(), num_shown])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str, query: EventQuery) -> tuple[datetime, int]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        device_id, is_ascending, time, num_shown = json.loads(base64.urlsafe_b64decode(padded.encode("ascii")))
        if (device_id, is_ascending) != (str(query.device_id), query.is_ascending):
            raise ValueError("of another list")
        moment = datetime.fromisoformat(time)
        if type(num_shown) is not int or not 0 <= num_shown < 2**31 or moment.tzinfo is None or moment.year < 1971:
            raise ValueError("no place in a list")
    except (ValueError, TypeError, RecursionError) as error:
        raise Invalid("cursor", "take it from `next_cursor` of a page of the same list") from error
    return moment, num_shown
