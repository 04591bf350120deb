"""What a device profile may say: what is kept of it, what is refused, and that a refusal names the entry and what to do."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hse.domain.devices.modbus import NUM_REGISTERS, checked_address
from hse.domain.devices.profile_formats import Definition, checked_definition
from hse.domain.devices.profile_paths import PATH_CHARS_MAX, UnreadablePath, kept_path, steps_of
from hse.domain.errors import Invalid
from tests.checks.sources import ROOT

POWER = {"key": "power", "unit": "W"}
ENERGY = {"key": "energy", "unit": "kWh", "counter": {"kind": "modulus", "modulus": 1_000_000}}
DOOR = {"key": "door", "type": "boolean"}
LABEL = {"key": "label", "type": "text"}
POINTS = [POWER, ENERGY, DOOR, LABEL]
HDP = {"kind": "hdp"}

KEYS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,49}", fullmatch=True)
LINES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(-1e100, 1e100)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def checked(format: object = HDP, points: object = POINTS, interval: object = None) -> Definition:  # noqa: A002
    return checked_definition(points, format, interval)


def as_sent_again(kept: Definition) -> Definition:
    """What comes of it when it is read from the API and written there again."""
    return checked_definition(*json.loads(json.dumps([kept.points, kept.format, kept.expected_interval_s])))


def mapping(**more: object) -> dict[str, object]:
    return {"kind": "json", "mappings": [{"path": "$.p", "point": "power", **more}]}


def register(**more: object) -> dict[str, object]:
    return {"kind": "modbus", "registers": [{"point": "power", "function": 3, "address": 0, "type": "u16", **more}]}


@st.composite
def points(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for key in draw(st.lists(KEYS, min_size=1, max_size=8, unique=True)):
        kind = draw(st.sampled_from(["number", "boolean", "text"]))
        point: dict[str, Any] = {"key": key, "type": kind, "name": draw(LINES)}
        if kind == "number":
            point["unit"] = draw(st.none() | LINES)
            limits = sorted(draw(st.lists(NUMBERS, min_size=2, max_size=2)))
            point |= dict(zip(draw(st.sampled_from([(), ("min",), ("max",), ("min", "max")])), limits, strict=False))
            point["counter"] = draw(
                st.sampled_from([None, {"kind": "none"}, {"kind": "resets"}])
                | st.builds(lambda end: {"kind": "modulus", "modulus": end}, st.integers(1, 2**64))
            )
        found.append(point)
    return found


@st.composite
def profiles(draw: st.DrawFn) -> tuple[Any, Any]:
    """Points, and a format that fits them."""
    known = draw(points())
    kind = draw(st.sampled_from(["hdp", "senml", "json", "modbus"]))
    if kind in ("hdp", "senml"):
        return known, {"kind": kind}
    scaled = {"scale": st.floats(1e-6, 1e6), "offset": NUMBERS}
    entries = []
    for point in known:
        is_number = point["type"] == "number"
        entry = {"point": point["key"], **{name: draw(one) for name, one in scaled.items() if is_number}}
        if kind == "json":
            entry["path"] = draw(st.sampled_from(["$.a", "$['switch:0'].apower", '$.list[3]["it\'s"]', "$"]))
        elif point["type"] == "text":
            continue
        else:
            entry["type"] = draw(st.sampled_from(sorted(NUM_REGISTERS.keys() - {"bool"}))) if is_number else "bool"
            entry["function"] = draw(st.sampled_from([3, 4] if is_number else [1, 2, 3, 4]))
            entry["address"] = draw(st.integers(0, 65_536 - NUM_REGISTERS[entry["type"]]))
            entry["word_order"] = draw(st.sampled_from(["big", "little"]))
            entry["writable"] = draw(st.booleans()) and entry["function"] in (1, 3)
            entry["deadband"] = draw(st.floats(0, 1e6)) if is_number else 0
        entries.append(entry)
    if not entries:
        return known, {"kind": "hdp"}
    return known, {"kind": kind, "mappings" if kind == "json" else "registers": entries}


@given(profiles())
def test_what_is_kept_says_everything_and_stays_the_same_when_it_is_sent_again(profile: tuple[Any, Any]) -> None:
    kept = checked(profile[1], profile[0])
    assert as_sent_again(kept) == kept
    for point in kept.points:
        assert list(point) == ["key", "name", "unit", "type", "min", "max", "counter"]
    for one in kept.format.get("mappings", []):  # type: ignore[attr-defined]
        assert list(one) == ["path", "point", "scale", "offset", "unit"]
    for one in kept.format.get("registers", []):  # type: ignore[attr-defined]
        assert len(one) == 11


@given(JSON, JSON, JSON)
def test_whatever_is_sent_is_taken_or_refused_by_the_name_of_its_place(
    some_points: object, some_format: object, interval: object
) -> None:
    for known, form in ((some_points, HDP), (POINTS, some_format), (some_points, some_format)):
        try:
            kept = checked(form, known, interval)
        except Invalid as error:
            assert error.field.startswith(("points", "format", "expected_interval_s"))  # noqa: PT017
            assert error.reason  # noqa: PT017
        else:
            assert as_sent_again(kept) == kept


@given(profiles(), st.sampled_from(["scale", "offset", "address", "function", "type", "path", "point", "unit"]), JSON)
def test_one_value_that_is_otherwise_is_refused_at_its_entry_or_kept(
    profile: tuple[Any, Any], name: str, value: object
) -> None:
    known, form = profile
    entries = form.get("mappings") or form.get("registers")
    if entries is None:
        return
    entries[-1][name] = value
    try:
        assert as_sent_again(checked(form, known)) == checked(form, known)
    except Invalid as error:
        assert f"[{len(entries) - 1}]" in error.field  # noqa: PT017


def test_what_is_left_out_is_filled_in() -> None:
    kept = checked(mapping())
    assert kept.points[1] == {
        "key": "energy",
        "name": "energy",
        "unit": "kWh",
        "type": "number",
        "min": None,
        "max": None,
        "counter": {"kind": "modulus", "modulus": 1_000_000},
    }
    assert kept.format == {
        "kind": "json",
        "items": None,
        "time": None,
        "mappings": [{"path": "$.p", "point": "power", "scale": 1, "offset": 0, "unit": "W"}],
    }
    assert checked(register()).format == {
        "kind": "modbus",
        "poll_interval_ms": 1000,
        "request_registers_max": 125,
        "request_gap_max": 16,
        "registers": [
            {
                "point": "power",
                "function": 3,
                "address": 0,
                "type": "u16",
                "byte_order": "big",
                "word_order": "big",
                "scale": 1,
                "offset": 0,
                "unit": "W",
                "deadband": 0,
                "writable": False,
            }
        ],
    }


@pytest.mark.parametrize(
    ("wrong", "field", "told"),
    [
        ("x", "points", "a list"),
        ([1], "points[0]", "an object"),
        ([{}], "points[0].key", "needed"),
        ([POWER, {"key": "a b"}], "points[1].key", "letters"),
        ([POWER, DOOR, POWER], "points[2].key", "points[0]"),
        ([{"key": "k" * 51}], "points[0].key", "50 characters"),
        ([{"key": "k", "unit": "m" * 21}], "points[0].unit", "20 characters"),
        ([{"key": "k", "name": "two\nlines"}], "points[0].name", "one line"),
        ([{"key": "k", "type": "bool"}], "points[0].type", "did you mean boolean?"),
        ([{"key": "k", "units": "W"}], "points[0].units", "did you mean unit?"),
        ([{"key": "k", "min": 2, "max": 1}], "points[0].max", "below min"),
        ([{"key": "k", "min": True}], "points[0].min", "a number"),
        ([{"key": "k", "max": 10**400}], "points[0].max", "between"),
        ([{"key": "k", "max": float("nan")}], "points[0].max", "between"),
        ([{**DOOR, "max": 1}], "points[0].max", "leave it out"),
        ([{"key": "k", "counter": "resets"}], "points[0].counter", "an object"),
        ([{"key": "k", "counter": {"kind": "reset"}}], "points[0].counter.kind", "did you mean resets?"),
        ([{"key": "k", "counter": {"kind": "modulus"}}], "points[0].counter.modulus", "needed"),
        ([{"key": "k", "counter": {"kind": "modulus", "modulus": 0}}], "points[0].counter.modulus", "more than 0"),
        ([{"key": "k", "counter": {"kind": "resets", "modulus": 9}}], "points[0].counter.modulus", "leave it out"),
        ([{**DOOR, "counter": {"kind": "resets"}}], "points[0].counter.kind", "only numbers"),
        ([{"key": f"k{at}"} for at in range(501)], "points", "500"),
    ],
)
def test_a_point_that_cannot_be_is_refused(wrong: object, field: str, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        checked(points=wrong)
    assert refused.value.field == field
    assert told in refused.value.reason


@pytest.mark.parametrize(
    ("wrong", "field", "told"),
    [
        (None, "format", "an object"),
        ({}, "format.kind", "hdp, json, senml, modbus"),
        ({"kind": "jason"}, "format.kind", "did you mean json?"),
        ({"kind": "hdp", "mappings": []}, "format.mappings", "not known"),
        ({"kind": "json"}, "format.mappings", "a list"),
        ({"kind": "json", "mappings": []}, "format.mappings", "at least one"),
        (mapping(path="p"), "format.mappings[0].path", "$.name"),
        (mapping(path="$.a..b"), "format.mappings[0].path", "character 4"),
        (mapping(path="$[*]"), "format.mappings[0].path", "character 2"),
        (mapping(path="$.a" * 17), "format.mappings[0].path", "character 4"),
        (mapping(path="$" + ".a" * 17), "format.mappings[0].path", "16 steps"),
        (mapping(point="powr"), "format.mappings[0].point", "power, energy"),
        (mapping(scale=0), "format.mappings[0].scale", "not 0"),
        (mapping(scale="2"), "format.mappings[0].scale", "a number"),
        (mapping(unit="kW"), "format.mappings[0].unit", "'W'"),
        (mapping(point="door", scale=2), "format.mappings[0].scale", "leave it out"),
        (mapping(point="label", unit="m"), "format.mappings[0].unit", "leave it out"),
        ({**mapping(), "time": "$.t"}, "format.time", "an object"),
        ({**mapping(), "time": {"path": "$.t"}}, "format.time.form", "rfc3339"),
        ({**mapping(), "time": {"path": "t", "form": "s"}}, "format.time.path", "$.name"),
        ({**mapping(), "items": "list"}, "format.items", "$.name"),
        ({"kind": "modbus", "registers": []}, "format.registers", "at least one"),
        ({**register(), "poll_interval_ms": 99}, "format.poll_interval_ms", "from 100"),
        ({**register(), "request_registers_max": 126}, "format.request_registers_max", "from 1 to 125"),
        ({**register(), "request_gap_max": -1}, "format.request_gap_max", "from 0"),
        (register(function=5), "format.registers[0].function", "from 1 to 4"),
        (register(address=65_536), "format.registers[0].address", "65535"),
        (register(address=-1), "format.registers[0].address", "from 0"),
        (register(address=65_535, type="f32"), "format.registers[0].address", "beyond 65535"),
        (register(type="float32"), "format.registers[0].type", "f32"),
        (register(type="bool"), "format.registers[0].type", "boolean"),
        (register(function=1), "format.registers[0].type", "coils"),
        (register(point="door"), "format.registers[0].type", "boolean"),
        (register(point="label"), "format.registers[0].type", "text"),
        (register(function=4, writable=True), "format.registers[0].writable", "only reads"),
        (register(writable=1), "format.registers[0].writable", "true or false"),
        (register(byte_order="ABCD"), "format.registers[0].byte_order", "big, little"),
        (register(deadband=-1), "format.registers[0].deadband", "in W"),
        (register(deadband=float("nan")), "format.registers[0].deadband", "a number between"),
        (register(scale=0), "format.registers[0].scale", "not 0"),
        (register(scale=float("inf")), "format.registers[0].scale", "a number between"),
        (register(offset=float("nan")), "format.registers[0].offset", "a number between"),
        ({**register(), "registers": [{}] * 10_000}, "format.registers", "500 entries at most"),
    ],
)
def test_a_format_that_cannot_be_is_refused(wrong: object, field: str, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        checked(wrong)
    assert refused.value.field == field
    assert told in refused.value.reason


def test_a_point_has_one_source() -> None:
    for wrong in (mapping(), register()):
        entries: Any = wrong.get("mappings") or wrong.get("registers")
        entries.append(entries[0])
        with pytest.raises(Invalid, match=r"\[0\] is about 'power', too"):
            checked(wrong)


def test_the_examples_of_the_description_are_what_is_kept() -> None:
    text = (ROOT / "docs" / "device-profiles.md").read_text(encoding="utf-8")
    examples = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    profiles = [one for one in examples if "format" in one]
    assert {one["format"]["kind"] for one in profiles} == {"json", "modbus"}
    for one in profiles:
        kept = checked(one["format"], one["points"], one["expected_interval_s"])
        assert json.dumps([kept.points, kept.format]) == json.dumps([one["points"], one["format"]])
    (address,) = [one for one in examples if "host" in one]
    assert checked_address(address) == address


@pytest.mark.parametrize("wrong", [0, -5, 1.5, True, "60", 31 * 86_400 + 1])
def test_an_interval_that_cannot_be_is_refused(wrong: object) -> None:
    with pytest.raises(Invalid, match=r"^expected_interval_s: "):
        checked(interval=wrong)


def test_a_profile_is_bounded_as_a_whole() -> None:
    def many(name_chars: int) -> list[dict[str, str]]:
        return [{"key": f"k{at}", "name": "n" * name_chars} for at in range(500)]

    assert len(checked(points=many(100)).points) == 500
    with pytest.raises(Invalid, match="131072 bytes"):
        checked(points=many(200))


def test_nobody_waits_more_eagerly_than_is_polled() -> None:
    slow = {**register(), "poll_interval_ms": 60_000}
    assert checked(slow, interval=60).expected_interval_s == 60
    with pytest.raises(Invalid, match="every device would be late"):
        checked(slow, interval=59)


@given(st.lists(st.integers(0, 9999) | LINES, max_size=8))
def test_a_path_is_kept_in_one_form_that_leads_to_the_same_place(steps: list[int | str]) -> None:
    def written(step: int | str, quote: str) -> str:
        if isinstance(step, int):
            return f"[{step}]"
        escaped = step.replace("\\", "\\\\").replace(quote, f"\\{quote}")
        return f"[{quote}{escaped}{quote}]"

    single, double = ("$" + "".join(written(step, quote) for step in steps) for quote in "'\"")
    if max(len(single), len(double)) > PATH_CHARS_MAX:
        return
    assert steps_of(single) == steps_of(double) == steps
    assert kept_path(single) == kept_path(double) == kept_path(kept_path(single))
    assert steps_of(kept_path(double)) == steps


@given(st.text(max_size=60))
def test_whatever_is_written_as_a_path_is_one_or_is_refused(text: str) -> None:
    for path in (text, f"${text}", f"$['{text}']"):
        try:
            kept = kept_path(path)
        except UnreadablePath:
            continue
        assert steps_of(kept) == steps_of(path)


def test_a_path_is_never_kept_longer_than_one_may_be() -> None:
    with pytest.raises(UnreadablePath, match="200 characters"):
        kept_path('$["' + "'" * 190 + '"]')
