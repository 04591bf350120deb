"""The interfaces are as their committed descriptions say."""

import pytest

from tests.api.snapshots import HERE, SNAPSHOTS


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_an_interface_is_as_its_committed_description_says(name: str) -> None:
    committed = (HERE / name).read_text(encoding="utf-8")
    assert SNAPSHOTS[name]() == committed, "if the change is wanted, run `make snapshots` and look at the diff"
