"""Rows of door codes and of commands, and what they say in the domain's words."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hse.adapters.postgres.door_code_tables import door_lock_codes
from hse.domain.booking.door_code_saga import CodeStanding, Fate, Heard, Terms


def is_live() -> sa.ColumnElement[bool]:
    """The condition that something may still be done with a code."""
    return door_lock_codes.c.ended_at.is_(None)


def terms_of(row: sa.Row[Any]) -> Terms:
    """When a code should open its door."""
    return Terms(valid_from=row.valid_from, valid_until=row.valid_until, max_usages=row.max_usages)


def standing_of(row: sa.Row[Any]) -> CodeStanding:
    """Where a code stands."""
    return CodeStanding(
        state=row.state,
        reason=row.reason,
        on_lock=_terms(row.on_lock_from, row.on_lock_until, row.on_lock_max_usages),
        may_be_on_lock=row.may_be_on_lock,
        told=row.told,
        told_terms=_terms(row.told_from, row.told_until, row.told_max_usages),
        num_tries=row.num_tries,
        not_before=row.not_before,
    )


def values_of(standing: CodeStanding) -> dict[str, Any]:
    """The columns that say so."""
    on_lock, told = standing.on_lock, standing.told_terms
    return {
        "state": standing.state,
        "reason": standing.reason,
        "on_lock_from": None if on_lock is None else on_lock.valid_from,
        "on_lock_until": None if on_lock is None else on_lock.valid_until,
        "on_lock_max_usages": None if on_lock is None else on_lock.max_usages,
        "may_be_on_lock": standing.may_be_on_lock,
        "told": standing.told,
        "told_from": None if told is None else told.valid_from,
        "told_until": None if told is None else told.valid_until,
        "told_max_usages": None if told is None else told.max_usages,
        "num_tries": standing.num_tries,
        "not_before": standing.not_before,
    }


def heard_of(command: sa.Row[Any], now: datetime) -> Heard:
    """What a command's row says of it. An answer that came too late for the command is an answer all the same."""
    since = command.sent_at or now
    fate = Fate.UNDER_WAY
    match command.state:
        case "succeeded":
            fate = Fate.DONE
        case "timed_out" if command.result_at is not None:
            fate = Fate.DONE if command.status == 0 else Fate.REFUSED
        case "failed":
            fate = Fate.REFUSED
        case "timed_out":
            fate = Fate.UNANSWERED
        case "expired":
            fate = Fate.NEVER_SENT
        case "cancelled":
            fate = Fate.TAKEN_BACK
        case "queued" if command.dispatch == "waiting":
            fate = Fate.WAITING
    return Heard(fate=fate, since=since, status=command.status)


def _terms(valid_from: datetime | None, valid_until: datetime | None, max_usages: int | None) -> Terms | None:
    if valid_from is None or valid_until is None:
        return None
    return Terms(valid_from=valid_from, valid_until=valid_until, max_usages=max_usages)
