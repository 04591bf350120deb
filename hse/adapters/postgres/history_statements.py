"""The statements that read the history, all of them from views that show the events of named devices."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

from hse.adapters.postgres.tables import Timestamptz
from hse.domain.telemetry.buckets import Span
from hse.domain.telemetry.ports import PartsQuery

UUIDS, TEXTS, TIMES = ARRAY(sa.Uuid()), ARRAY(sa.Text()), ARRAY(Timestamptz)

# A plan that fits any time is one of all partitions. The planner is told with the naming of devices, for what comes behind it.
PLANNING = {"plan_cache_mode": "force_custom_plan"}


def _kept(text: str, **types: TypeEngine[Any]) -> sa.TextClause:
    """A statement that takes all its values as parameters, some of them of these types."""
    bound = [sa.bindparam(name, type_=type_) for name, type_ in types.items()]
    return sa.text(text).bindparams(*bound).execution_options(is_kept=True)


# One snapshot for all: what has marked no late hour in it is in `snapshot`, or comes after it.
MOMENT = _kept(
    "select stands.hours_until, stands.days_until, stands.kept_from, stands.snapshot, late.device_id, late.hours, late.marked_by"
    "  from history_state() stands left join ("
    "       select device_id, range_agg(tstzrange(bucket, bucket + interval '1 hour')) as hours,"
    "              array_agg(distinct marked_by) as marked_by"
    "         from named_late_hours"
    "        where device_id = any(:ids) and bucket > cast(:since as timestamptz) - interval '1 hour' and bucket < :until"
    "        group by device_id) late on true",
    ids=UUIDS,
)

# The planner expects a few rows where a year by days reads a hundred thousand, and would sort them on disk. It is told otherwise
# for that one statement: of others, and of hundreds of chunks, it would look for a plan without sorting for minutes.
GROUPING_IN_MEMORY = _kept("select set_config('work_mem', '32MB', true), set_config('enable_sort', 'off', true)")

# The newest hour or day that something of a device and type is known of; of a late hour nobody knows the types before its events
# are read. Days and hours name the types, so that no more events are read than those of the last hours.
NEWEST_HOURS = _kept(
    "with found as ("
    "    select device_id, event_type, max(time) as since, max(time) + interval '1 microsecond' as until"
    "      from named_events where device_id = any(:ids) and time >= :hours_until"
    "       and time >= now() - interval '366 days' group by 1, 2"
    "    union all"
    "    select device_id, event_type, max(bucket), max(bucket) + interval '1 hour'"
    "      from named_hours where device_id = any(:ids) and bucket >= :days_until and bucket < :hours_until group by 1, 2"
    "    union all"
    "    select device_id, event_type, max(bucket), max(bucket) + interval '1 day' from named_days"
    "     where device_id = any(:ids) and bucket < :days_until"
    "       and bucket >= cast(:days_until as timestamptz) - interval '366 days' group by 1, 2"
    "    union all"
    "    select device_id, null, max(bucket), max(bucket) + interval '1 hour' from named_late_hours"
    "     where device_id = any(:ids) and bucket >= now() - interval '366 days' group by 1"
    ")"
    "select distinct on (device_id, event_type) device_id, event_type, since, until from found"
    " where event_type is null or cast(:types as text[]) is null or event_type = any(cast(:types as text[]))"
    " order by device_id, event_type, until desc",
    ids=UUIDS,
    types=TEXTS,
)

# The newest event of each type in those. All of them lie between two times, by which the planner chooses partitions.
LATEST = _kept(
    "select distinct on (event.device_id, event.event_type) event.*"
    "  from unnest(:ids, :event_types, :since, :until) as newest (device_id, event_type, since, until)"
    " cross join lateral ("
    "       select time, device_id, event_type, value, unit, metadata, source from named_events"
    "        where device_id = newest.device_id and (newest.event_type is null or event_type = newest.event_type)"
    "          and (cast(:types as text[]) is null or event_type = any(cast(:types as text[])))"
    "          and time >= newest.since and time < newest.until"
    "          and time >= cast(:first as timestamptz) and time < cast(:last as timestamptz)"
    "        order by time desc limit case when newest.event_type is not null then 1 end) event"
    " order by event.device_id, event.event_type, event.time desc",
    ids=UUIDS,
    event_types=TEXTS,
    since=TIMES,
    until=TIMES,
    types=TEXTS,
)


def _events(direction: str) -> sa.TextClause:
    # What has the same time stands in an order of its own, which a cursor can count in.
    return _kept(
        "select time, device_id, event_type, value, unit, metadata, source from named_events"  # noqa: S608 (asc or desc)
        " where device_id = :id and time >= :since and time < :until"
        "   and (cast(:types as text[]) is null or event_type = any(cast(:types as text[])))"
        f" order by time {direction}, event_type, value, unit, source, metadata::text offset :skipped limit :limit",
        types=TEXTS,
        id=sa.Uuid(),
    )


EVENTS_ASCENDING, EVENTS_DESCENDING = _events("asc"), _events("desc")

# Aggregates are read a device at a time: of pieces whose times it does not know the planner expects next to nothing, and would
# rather read the hours of all devices by their time.
COUNTED = {
    "events": (
        "select read.device_id, read.event_type, width_bucket(read.time, cast(:edges as timestamptz[])) as number,"
        " count(*) as samples,"
        " count(countable(read.value)) as num_values, sum(countable(read.value)) as total,"
        " min(countable(read.value)) as minimum, max(countable(read.value)) as maximum,"
        " var_pop(countable(read.value)) * count(countable(read.value)) as square_deviation,"
        " min(read.unit) as unit_min, max(read.unit) as unit_max"
        " from unnest(:events_since, :events_until) as piece (since, until) cross join lateral ("
        " select device_id, event_type, time, value, unit from named_events"
        " where device_id = any(:ids) and event_type = any(:types) and time >= piece.since and time < piece.until"
        " and time >= :events_from and time < :events_to offset 0) read group by 1, 2, 3"
    ),
    "hours": (
        "select read.device_id, read.event_type, width_bucket(read.bucket, cast(:edges as timestamptz[])) as number, read.samples,"
        " read.value_count as num_values, read.value_sum as total, read.value_min as minimum, read.value_max as maximum,"
        " read.value_square_deviation as square_deviation, read.unit_min, read.unit_max"
        " from unnest(:ids) as asked (device_id) cross join unnest(:hours_since, :hours_until) as piece (since, until)"
        " cross join lateral ("
        " select device_id, event_type, bucket, samples, value_count, value_sum, value_min, value_max, value_square_deviation,"
        " unit_min, unit_max from named_hours"
        " where device_id = asked.device_id and event_type = any(:types) and bucket >= piece.since and bucket < piece.until"
        " and bucket >= :hours_from and bucket < :hours_to offset 0) read"
    ),
    "days": (
        "select read.device_id, read.event_type, width_bucket(read.bucket, cast(:edges as timestamptz[])) as number, read.samples,"
        " read.value_count as num_values, read.value_sum as total, read.value_min as minimum, read.value_max as maximum,"
        " cast(null as double precision) as square_deviation, read.unit_min, read.unit_max"
        " from unnest(:ids) as asked (device_id) cross join unnest(:days_since, :days_until) as piece (since, until)"
        " cross join lateral ("
        " select device_id, event_type, bucket, samples, value_count, value_sum, value_min, value_max, unit_min, unit_max"
        " from named_days"
        " where device_id = asked.device_id and event_type = any(:types) and bucket >= piece.since and bucket < piece.until"
        " and bucket >= :days_from and bucket < :days_to offset 0) read"
    ),
}

# Whose they are, and of which bucket; then the fields of a `Partial`, in its order.
TOGETHER = (
    "select device_id, event_type, number, sum(samples)::bigint as samples, sum(num_values)::bigint as num_values,"
    " sum(total) as total, min(minimum) as minimum, max(maximum) as maximum, {square_deviation} as square_deviation,"
    " min(unit_min) as unit_min, max(unit_max) as unit_max from {parts} group by 1, 2, 3"
)
WITHOUT_DEVIATION = TOGETHER.format(square_deviation="cast(null as double precision)", parts="parts")
# What deviates from the mean of all: within each part, and the parts' own means.
WITH_DEVIATION = TOGETHER.format(
    square_deviation="case when bool_and(num_values = 0 or square_deviation is not null) then"
    " coalesce(sum(square_deviation), 0) + coalesce(sum(num_values * (total / nullif(num_values, 0) - mean) ^ 2), 0) end",
    parts="(select *, sum(total) over bucket / nullif(sum(num_values) over bucket, 0) as mean"
    " from parts window bucket as (partition by device_id, event_type, number)) parts",
)


def parts(query: PartsQuery) -> tuple[sa.TextClause, dict[str, Any]] | None:
    """The statement that counts the pieces, with its parameters; None when there is nothing to count."""
    pieces = {"events": query.pieces.events, "hours": query.pieces.hours, "days": query.pieces.days}
    used = {name: spans for name, spans in pieces.items() if spans}
    if not used:
        return None
    parameters: dict[str, Any] = {
        "ids": list(query.device_ids),
        "types": list(query.event_types),
        "edges": _literal(query.edges),
    }
    for name, spans in used.items():
        parameters |= _bounds(name, spans)
    return _counting(tuple(used), has_deviation=query.has_deviation), parameters


@cache
def _counting(pieces: tuple[str, ...], *, has_deviation: bool) -> sa.TextClause:
    """The statement that counts pieces of these kinds."""
    counted = " union all ".join(COUNTED[name] for name in pieces)
    together = WITH_DEVIATION if has_deviation else WITHOUT_DEVIATION
    spans = {f"{name}_{end}": TIMES for name in pieces for end in ("since", "until")}
    return _kept(f"with parts as ({counted}) {together}", ids=UUIDS, types=TEXTS, **spans)


def _literal(times: Sequence[datetime]) -> str:
    """An array as PostgreSQL reads it: a chart has hundreds of edges, for which the driver would take longer than for the rows."""
    return f"{{{','.join(map(datetime.isoformat, times))}}}"


def _bounds(name: str, spans: tuple[Span, ...]) -> dict[str, Any]:
    """The pieces, and what they lie in together, by which the planner chooses partitions."""
    return {
        f"{name}_since": [one.since for one in spans],
        f"{name}_until": [one.until for one in spans],
        f"{name}_from": spans[0].since,
        f"{name}_to": spans[-1].until,
    }
