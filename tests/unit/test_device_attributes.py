"""What is merged into the attributes of a device, what of the desired it has not reported, and how much there may be of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hse.domain.devices.device_attributes import (
    ATTRIBUTES_BYTES_MAX,
    changed_names,
    check_attributes,
    delta_of,
    merged,
)
from hse.domain.errors import Invalid

NAMES = st.text("abc", min_size=1, max_size=2)
PLAIN = st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 0.5]) | st.text("xy", max_size=2)
# In a document that was merged there is no null but in lists; in a patch there may be one anywhere.
VALUES = st.recursive(
    PLAIN | st.lists(st.none() | PLAIN, max_size=3), lambda inner: st.dictionaries(NAMES, inner, max_size=3)
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=4)
PATCHES = st.dictionaries(
    NAMES, st.recursive(st.none() | PLAIN, lambda inner: st.dictionaries(NAMES, inner, max_size=3)), max_size=4
)


# Appendix A of RFC 7396, as far as document and patch are objects there.
@pytest.mark.parametrize(
    ("document", "patch", "after"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"a": "foo"}, {"a": {"b": None}}, {"a": {}}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merging_is_that_of_the_rfc(document: dict[str, Any], patch: dict[str, Any], after: dict[str, Any]) -> None:
    assert merged(document, patch) == after


@given(DOCUMENTS, PATCHES)
def test_a_patch_that_is_merged_twice_is_merged_once(document: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merged(document, patch)
    assert merged(once, patch) == once
    assert changed_names(once, merged(once, patch)) == []
    assert set(changed_names(document, once)) <= patch.keys()


@given(DOCUMENTS, DOCUMENTS)
def test_a_device_that_does_what_it_lacks_is_as_desired(desired: dict[str, Any], reported: dict[str, Any]) -> None:
    delta = delta_of(desired, reported)
    assert delta_of(desired, merged(reported, delta)) == {}
    assert delta_of(desired, desired) == {}
    assert delta_of(desired, {}) == desired


def test_a_number_is_the_same_however_it_is_written_and_no_truth() -> None:
    assert delta_of({"a": 1, "b": [2.0]}, {"a": 1.0, "b": [2]}) == {}
    assert delta_of({"a": 1}, {"a": True}) == {"a": 1}
    assert changed_names({"a": 1}, {"a": 1.0}) == []
    assert changed_names({"a": 0}, {"a": False, "b": None}) == ["a", "b"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"a": "x" * ATTRIBUTES_BYTES_MAX}, "bytes"),
        ({"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {}}}}}}}}}, "8 levels"),
        ({"": 1}, "1 to 128"),
        ({"a": [{"n" * 129: 1}]}, "1 to 128"),
        ({"a": ["\0"]}, "NUL"),
        ({"a\0": 1}, "NUL"),
        ({"a": "\ud800"}, "half a character"),
        ({"a": [float("inf")]}, "beyond all numbers"),
    ],
)
def test_what_cannot_be_kept_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(Invalid, match=told) as refused:
        check_attributes(wrong)
    assert refused.value.field == "desired"


def test_what_only_looks_like_a_nul_and_the_largest_that_fits_are_taken() -> None:
    check_attributes({"a": "\\u0000", "b": "é" * 8000})
    check_attributes({"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": 1}}}}}}}})
