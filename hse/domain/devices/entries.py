"""What somebody wrote as JSON, read value by value; a refusal says at which place, and what to write instead."""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hse.domain.errors import Invalid

# As far as aggregates count; beyond it a number is a mistake of whoever wrote it.
NUMBER_MAX = 1e100
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
Number = int | float


@dataclass(frozen=True, slots=True)
class Entry:
    """A JSON object, and where it stands in what was sent: `format.registers[3]`. A null in it is as if it were left out."""

    place: str
    values: Mapping[str, object]

    def at(self, name: str) -> str:
        """Where one of its values stands."""
        return f"{self.place}.{name}" if self.place else name

    def refuse(self, name: str, reason: str) -> Invalid:
        """The refusal of one of its values."""
        return Invalid(self.at(name), reason)

    def _given(self, name: str, default: object) -> object:
        """What stands there; null is as if it were left out."""
        value = self.values.get(name)
        return default if value is None else value

    def text(self, name: str, chars_max: int, *, default: str | None = None) -> str:
        """One line of 1 to `chars_max` characters; without a default it is needed. Raises `Invalid`."""
        value = self._given(name, default)
        if not isinstance(value, str):
            raise self.refuse(name, f"is needed: a text of 1 to {chars_max} characters")
        if not 1 <= len(value) <= chars_max:
            raise self.refuse(name, f"has 1 to {chars_max} characters, not {len(value)}")
        if CONTROL_CHARACTER.search(value):
            raise self.refuse(name, "is one line of text, without control characters")
        return value

    def text_or_none(self, name: str, chars_max: int) -> str | None:
        """The same for what may be left out, or null."""
        return None if self.values.get(name) is None else self.text(name, chars_max)

    def choice(self, name: str, choices: Sequence[str], *, default: str | None = None) -> str:
        """One of a few words; without a default it is needed. Raises `Invalid`."""
        value = self._given(name, default)
        if not isinstance(value, str) or value not in choices:
            raise self.refuse(name, f"is one of {', '.join(choices)}{_near(value, choices)}")
        return value

    def number(self, name: str, *, default: Number | None = None) -> Number:
        """A finite number; without a default it is needed. Raises `Invalid`."""
        value = self._given(name, default)
        # JSON's true is a number in Python.
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse(name, "is needed: a number" if default is None else "is a number")
        # So written, the comparison refuses what is no number at all, too.
        if not abs(value) <= NUMBER_MAX:
            raise self.refuse(name, f"is a number between -{NUMBER_MAX:g} and {NUMBER_MAX:g}")
        return value

    def number_or_none(self, name: str) -> Number | None:
        """The same for what may be left out, or null."""
        return None if self.values.get(name) is None else self.number(name)

    def whole(self, name: str, lowest: int, highest: int, *, default: int | None = None) -> int:
        """A whole number within bounds; without a default it is needed. Raises `Invalid`."""
        value = self._given(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise self.refuse(name, f"is a whole number from {lowest} to {highest}")
        return value

    def truth(self, name: str, *, default: bool) -> bool:
        """True or false. Raises `Invalid`."""
        value = self._given(name, default)
        if not isinstance(value, bool):
            raise self.refuse(name, "is true or false")
        return value


def entry_of(place: str, given: object, known: Collection[str]) -> Entry:
    """The object that stands there. Raises `Invalid` when it is none, or has a field that there is not."""
    if not isinstance(given, Mapping):
        raise Invalid(place, f"is an object with {', '.join(known)}")
    for name in given:
        if name not in known:
            field = f"{place}.{str(name)[:60]}" if place else str(name)[:60]
            raise Invalid(field, f"is not known here: there are {', '.join(known)}{_near(name, known)}")
    return Entry(place, given)


def entries_of(place: str, given: object, known: Collection[str], count_max: int) -> list[Entry]:
    """The objects of the list that stands there. Raises `Invalid`."""
    if not isinstance(given, list | tuple):
        raise Invalid(place, "is a list of objects")
    if len(given) > count_max:
        raise Invalid(place, f"has {count_max} entries at most, not {len(given)}: spread them over several profiles")
    return [entry_of(f"{place}[{at}]", one, known) for at, one in enumerate(given)]


def _near(given: object, known: Collection[str]) -> str:
    """A hint at what was meant."""
    found = difflib.get_close_matches(given[:60], known, n=1) if isinstance(given, str) else []
    return f"; did you mean {found[0]}?" if found else ""
