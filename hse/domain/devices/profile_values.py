"""What every mapping says of its value: which point it is of, and how the raw value becomes one in the point's unit.

value = raw * scale + offset, in `unit`. A raw value of a counter is kept beside the scaled one, by whoever reads it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from hse.domain.devices.entries import Entry, Number
from hse.domain.devices.profile_points import KEY_CHARS_MAX, UNIT_CHARS_MAX, Point

SCALE_MIN: Final = 1e-30


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """From a raw value to one in `unit`; of what is no number, 1 and 0."""

    scale: Number
    offset: Number
    unit: str | None

    def as_json(self) -> dict[str, object]:
        """As it is kept."""
        return asdict(self)


def point_of(entry: Entry, points: Mapping[str, Point], read: dict[str, str]) -> Point:
    """The point that an entry is about, noted in `read` with its place. Raises `Invalid` for none, and for one of another entry."""
    key = entry.text("point", KEY_CHARS_MAX)
    point = points.get(key)
    if point is None:
        known = ", ".join([*points][:10]) or "none yet"
        raise entry.refuse(
            "point", f"{key!r} is no point of this profile: add it to points, or name one of them ({known})"
        )
    if (other := read.setdefault(key, entry.place)) != entry.place:
        raise entry.refuse("point", f"{other} is about {key!r}, too: a point has one source")
    return point


def scaling_of(entry: Entry, point: Point) -> Scaling:
    """How an entry's raw value becomes its point's. Raises `Invalid`."""
    scale, offset = entry.number("scale", default=1), entry.number("offset", default=0)
    if point.type != "number":
        for name, is_given in (("scale", scale != 1), ("offset", offset != 0), ("unit", entry.values.get("unit"))):
            if is_given:
                raise entry.refuse(name, f"is for numbers, and {point.key!r} is {point.type}: leave it out")
    if abs(scale) < SCALE_MIN:
        raise entry.refuse("scale", "is not 0: every value would be the same")
    unit = entry.text_or_none("unit", UNIT_CHARS_MAX)
    if None not in (unit, point.unit) and unit != point.unit:
        reason = f"{unit!r} is not the unit of {point.key!r}, which is {point.unit!r}: scale the value to that, and leave unit out"
        raise entry.refuse("unit", reason)
    return Scaling(scale=scale, offset=offset, unit=unit or point.unit)
