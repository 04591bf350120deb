"""The format of a device profile: how what its devices say becomes values of its points.

| kind | what it says |
|---|---|
| `hdp` | nothing: devices send events of the type of a point's key |
| `senml` | nothing: a resolved name of RFC 8428 is a point's key |
| `json` | a list of mappings from places in a JSON payload to points, and where its time stands |
| `modbus` | a list of registers, and how often they are polled (`hse.domain.devices.modbus`) |

`checked_definition` is the one way in: what it returns is what is kept, with every field there, and stays the same when it is given
to it again.
`docs/device-profiles.md` describes it for people and for the ingest core.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hse.domain.devices.entries import Entry, entries_of, entry_of
from hse.domain.devices.modbus import FORMAT_FIELDS as MODBUS_FIELDS
from hse.domain.devices.modbus import checked_modbus
from hse.domain.devices.profile_paths import PATH_CHARS_MAX, UnreadablePath, kept_path
from hse.domain.devices.profile_points import Point, checked_points
from hse.domain.devices.profile_values import point_of, scaling_of
from hse.domain.errors import Invalid

MAPPINGS_MAX: Final = 500
# So many bytes of JSON may a profile have, so that a page of them can be answered.
DEFINITION_BYTES_MAX: Final = 128 * 1024
# A device that says something once a month is the slowest one that is waited for.
EXPECTED_INTERVAL_S_MAX: Final = 31 * 24 * 3600
TIME_FORMS: Final = ("s", "ms", "us", "ns", "rfc3339")
MAPPING_FIELDS: Final = ("path", "point", "scale", "offset", "unit")
FORMAT_FIELDS: Final[Mapping[str, Sequence[str]]] = {
    "hdp": ("kind",),
    "json": ("kind", "items", "time", "mappings"),
    "senml": ("kind",),
    "modbus": MODBUS_FIELDS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What devices of a profile measure and how they say it, as it is kept: JSON with every field there."""

    points: list[dict[str, object]]
    format: dict[str, object]
    expected_interval_s: int | None


def checked_definition(points: object, format: object, expected_interval_s: object) -> Definition:  # noqa: A002
    """The definition of a profile out of what somebody wrote.

    `points` is a list of up to 500 objects, `format` one object, `expected_interval_s` a number of seconds from 1 to 31 days, or
    None where nobody waits for these devices. Raises `Invalid`: its field names the entry (`format.registers[3].address`), and its
    reason says what to write.
    """
    known = checked_points(points)
    checked = checked_format(format, known)
    interval = Entry("", {"expected_interval_s": expected_interval_s})
    seconds = None if expected_interval_s is None else interval.whole("expected_interval_s", 1, EXPECTED_INTERVAL_S_MAX)
    poll_interval_ms = checked.get("poll_interval_ms", 0)
    if seconds is not None and isinstance(poll_interval_ms, int) and seconds * 1000 < poll_interval_ms:
        raise interval.refuse(
            "expected_interval_s", "is shorter than the interval of polling: every device would be late"
        )
    kept = Definition(points=[one.as_json() for one in known], format=checked, expected_interval_s=seconds)
    if len(json.dumps([kept.points, kept.format])) > DEFINITION_BYTES_MAX:
        raise Invalid("points", f"and format have {DEFINITION_BYTES_MAX} bytes of JSON at most: shorten the names")
    return kept


def checked_format(given: object, points: Sequence[Point]) -> dict[str, object]:
    """The format of a profile with these points. Raises `Invalid`."""
    if not isinstance(given, Mapping):
        raise Invalid("format", 'is an object with a kind, such as {"kind": "hdp"}')
    kind = Entry("format", given).choice("kind", tuple(FORMAT_FIELDS))
    entry = entry_of("format", given, FORMAT_FIELDS[kind])
    by_key = {point.key: point for point in points}
    match kind:
        case "json":
            return _json(entry, by_key)
        case "modbus":
            return checked_modbus(entry, by_key)
        case _:
            return {"kind": kind}


def _json(entry: Entry, points: Mapping[str, Point]) -> dict[str, object]:
    place = entry.at("mappings")
    mappings = entries_of(place, entry.values.get("mappings"), MAPPING_FIELDS, MAPPINGS_MAX)
    if not mappings:
        raise Invalid(place, "names at least one value: without any, nothing of a payload is understood")
    mapped: dict[str, str] = {}
    return {
        "kind": "json",
        "items": None if entry.values.get("items") is None else _path(entry, "items"),
        "time": None if entry.values.get("time") is None else _time(entry),
        "mappings": [_mapping(one, points, mapped) for one in mappings],
    }


def _mapping(entry: Entry, points: Mapping[str, Point], mapped: dict[str, str]) -> dict[str, object]:
    point = point_of(entry, points, mapped)
    return {"path": _path(entry, "path"), "point": point.key, **scaling_of(entry, point).as_json()}


def _time(entry: Entry) -> dict[str, object]:
    time = entry_of(entry.at("time"), entry.values["time"], ("path", "form"))
    return {"path": _path(time, "path"), "form": time.choice("form", TIME_FORMS)}


def _path(entry: Entry, name: str) -> str:
    try:
        return kept_path(entry.text(name, PATH_CHARS_MAX))
    except UnreadablePath as error:
        raise entry.refuse(name, str(error)) from error
