"""`hse doctor` tells a journal and a database apart that do not belong together."""

from typing import Any

import pytest

from hse.cli.doctor import disagreement_of


def journal(state: str = "open", freed: int = 100, end: int = 200) -> dict[str, Any]:
    return {"tail": {"state": state}, "cursor": {"position": freed}, "end": end}


@pytest.mark.parametrize("position", [None, 100, 150, 200])
def test_a_cursor_between_the_journals_own_and_its_end_is_well(position: int | None) -> None:
    assert disagreement_of(journal(), position) is None


@pytest.mark.parametrize(
    ("position", "said"),
    [(99, "the journal was freed up to 100"), (201, "the journal ends at 200")],
    ids=["database", "journal"],
)
def test_an_older_copy_of_either_side_is_told(position: int, said: str) -> None:
    told = disagreement_of(journal(), position)
    assert told is not None
    assert said in told
    assert "older copy" in told


def test_a_journal_that_the_core_would_refuse_is_told() -> None:
    assert "refuses" in str(disagreement_of(journal(state="damaged"), None))
