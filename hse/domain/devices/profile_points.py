"""The points of a device profile: what its devices measure or can be told, under which key, in which unit.

A point as it is kept, with every field there (`docs/device-profiles.md` is the description for people and for the ingest core):

    {"key": "energy", "name": "Active energy", "unit": "kWh", "type": "number", "min": 0, "max": null,
     "counter": {"kind": "modulus", "modulus": 1000000}}
"""

import re
from dataclasses import asdict, dataclass
from typing import Final, Literal

from hse.domain.devices.entries import Entry, Number, entries_of, entry_of

POINTS_MAX: Final = 500
# As the ingest core bounds the type and the unit of an event.
KEY_CHARS_MAX: Final = 50
UNIT_CHARS_MAX: Final = 20
NAME_CHARS_MAX: Final = 200
# What becomes a name in a topic, a path or a column's head without a second thought.
KEY: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")

PointType = Literal["number", "boolean", "text"]
POINT_TYPES: Final[tuple[PointType, ...]] = ("number", "boolean", "text")
COUNTER_KINDS: Final = ("none", "modulus", "resets")
POINT_FIELDS: Final = ("key", "name", "unit", "type", "min", "max", "counter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """How a counter goes on behind its end.

    `none`: the point is no counter. `modulus`: instead of `modulus`, in the point's unit, it shows 0 again. `resets`: it may begin
    at 0 at any time.
    """

    kind: str
    modulus: Number | None = None

    def as_json(self) -> dict[str, object]:
        """As it is kept: `modulus` is there only where it means something."""
        return {"kind": self.kind} if self.modulus is None else {"kind": self.kind, "modulus": self.modulus}


NO_COUNTER: Final = Counter(kind="none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point. `min` and `max` are the limits of a plausible value, inclusive, in its unit; None is no limit."""

    key: str
    name: str
    unit: str | None
    type: str
    min: Number | None
    max: Number | None
    counter: Counter

    def as_json(self) -> dict[str, object]:
        """As it is kept."""
        return {**asdict(self), "counter": self.counter.as_json()}


def checked_points(given: object) -> list[Point]:
    """The points of a profile. Raises `Invalid`, which names the entry: `points[3].key`."""
    found: dict[str, int] = {}
    points = []
    for at, entry in enumerate(entries_of("points", given, POINT_FIELDS, POINTS_MAX)):
        point = _point(entry)
        if (other := found.setdefault(point.key, at)) != at:
            raise entry.refuse("key", f"{point.key!r} is the key of points[{other}], too: give each point its own")
        points.append(point)
    return points


def _point(entry: Entry) -> Point:
    key = entry.text("key", KEY_CHARS_MAX)
    if KEY.fullmatch(key) is None:
        raise entry.refuse("key", "is made of letters, digits and _ . : -, and begins with none of the last three")
    kind = entry.choice("type", POINT_TYPES, default="number")
    unit = entry.text_or_none("unit", UNIT_CHARS_MAX)
    lowest, highest = entry.number_or_none("min"), entry.number_or_none("max")
    for name, value in (("min", lowest), ("max", highest), ("unit", unit)):
        if value is not None and kind != "number":
            raise entry.refuse(name, f"is for points of the type number, and this one is {kind}: leave it out")
    if lowest is not None and highest is not None and lowest > highest:
        raise entry.refuse("max", f"is below min ({lowest:g}): no value would be plausible")
    return Point(
        key=key,
        name=entry.text("name", NAME_CHARS_MAX, default=key),
        unit=unit,
        type=kind,
        min=lowest,
        max=highest,
        counter=_counter(entry, kind),
    )


def _counter(point: Entry, kind: str) -> Counter:
    given = point.values.get("counter")
    if given is None:
        return NO_COUNTER
    entry = entry_of(point.at("counter"), given, ("kind", "modulus"))
    counter = entry.choice("kind", COUNTER_KINDS)
    if counter != "none" and kind != "number":
        raise entry.refuse("kind", f"only numbers count, and this point is {kind}: write none, or leave counter out")
    if counter != "modulus":
        if entry.values.get("modulus") is not None:
            raise entry.refuse("modulus", f"is for the kind modulus, and this one is {counter}: leave it out")
        return Counter(kind=counter)
    modulus = entry.number("modulus")
    if modulus <= 0:
        raise entry.refuse("modulus", "is more than 0: the first value that the counter never shows, such as 1000000")
    return Counter(kind=counter, modulus=modulus)
