"""Paths into a JSON payload: the part of JSONPath (RFC 9535) that names one value and no more.

    path = "$" *( "." name / "['" text "']" / '["' text '"]' / "[" index "]" )
    name = a letter or "_", then letters, digits and "_" (ASCII);  index = 0 .. 9999, without leading zeros

Between quotes anything may stand that is no control character; the quote itself and the backslash have a backslash in front. There
are no wildcards, slices, filters and no `..`: what a path costs is its length, and what it means is one place.

A path is kept in one form: `.name` where the step can be written so, else `['text']`, `[index]` for positions.
"""

import re
from typing import Final

PATH_CHARS_MAX: Final = 200
STEPS_MAX: Final = 16
INDEX_MAX: Final = 9999

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
STEP: Final = re.compile(
    r"\.(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|\[(?P<index>0|[1-9][0-9]{0,3})\]"
    r"|\['(?P<single>(?:[^'\\\x00-\x1f\x7f]|\\['\\])*)'\]"
    r'|\["(?P<double>(?:[^"\\\x00-\x1f\x7f]|\\["\\])*)"\]'
)

Step = str | int


class UnreadablePath(ValueError):
    """A text is no path of this kind; it says from which character on."""


def steps_of(path: str) -> list[Step]:
    """The steps of a path, names as they stand in the payload and positions as numbers. Raises `UnreadablePath`."""
    if len(path) > PATH_CHARS_MAX:
        raise UnreadablePath(f"has {PATH_CHARS_MAX} characters at most")
    if not path.startswith("$"):
        raise UnreadablePath("begins with $, the payload itself: write $.name")
    steps: list[Step] = []
    at = 1
    while at < len(path):
        found = STEP.match(path, at)
        if found is None:
            raise UnreadablePath(
                f"cannot be read from character {at + 1} on, {path[at : at + 20]!r}: steps are .name, ['any name'] and [0]"
            )
        steps.append(_step(found))
        at = found.end()
    if len(steps) > STEPS_MAX:
        raise UnreadablePath(f"has {STEPS_MAX} steps at most")
    return steps


def kept_path(path: str) -> str:
    """The path in the form in which it is kept, with the same steps. Raises `UnreadablePath`."""
    kept = "$" + "".join(_written(step) for step in steps_of(path))
    if len(kept) > PATH_CHARS_MAX:
        # A quote that needed no backslash before may need one now.
        raise UnreadablePath(f"has {PATH_CHARS_MAX} characters at most")
    return kept


def _step(found: re.Match[str]) -> Step:
    if (index := found["index"]) is not None:
        return int(index)
    if (name := found["name"]) is not None:
        return name
    quoted = found["double"] if found["single"] is None else found["single"]
    return re.sub(r"\\(.)", r"\1", quoted)


def _written(step: Step) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    if NAME.fullmatch(step):
        return f".{step}"
    quoted = re.sub(r"(['\\])", r"\\\1", step)
    return f"['{quoted}']"
