"""Rows that have served: answers kept for repeats, ended sessions, used tokens and links, sent letters, commands that have
ended. The audit log stays."""

from datetime import datetime, timedelta

import sqlalchemy as sa

from hse.adapters.postgres.idempotency import KEPT_FOR as ANSWERS_KEPT_FOR
from hse.adapters.postgres.identity_tables import (
    idempotency_keys,
    invitations,
    outgoing_mail,
    password_resets,
    refresh_tokens,
    sessions,
)
from hse.adapters.postgres.tables import device_command_groups, device_commands

# A bite is short, so that nobody waits for its locks; what is left over is taken in the next minute.
ROWS_MAX = 5_000

# They tell from which addresses their owner came before: from these, nobody who guesses elsewhere slows him down (ADR 9).
SESSIONS_KEPT_FOR = timedelta(days=90)
# A refresh token lives for 7 days: one that was used before that tells nothing any more when it comes again.
USED_TOKENS_KEPT_FOR = timedelta(days=8)
RESETS_KEPT_FOR = timedelta(days=7)
# Accepted ones stay with the user: they say who brought him in.
INVITATIONS_KEPT_FOR = timedelta(days=90)
LETTERS_KEPT_FOR = timedelta(days=30)
COMMANDS_KEPT_FOR = timedelta(days=90)


def delete_expired(engine: sa.Engine, now: datetime) -> int:
    """Delete what has expired at `now` (aware), a transaction a table; returns how many rows."""
    num_deleted = 0
    for table, has_expired in _expired(now):
        # By the place of the row: not every table has one column as its key.
        place: sa.ColumnElement[object] = sa.literal_column("ctid")
        bite = sa.select(place).select_from(table).where(has_expired).limit(ROWS_MAX).with_for_update(skip_locked=True)
        with engine.begin() as connection:
            num_deleted += connection.execute(sa.delete(table).where(place.in_(bite.scalar_subquery()))).rowcount
    return num_deleted


def _expired(now: datetime) -> list[tuple[sa.Table, sa.ColumnElement[bool]]]:
    ended_at = sa.func.least(sessions.c.revoked_at, sessions.c.expires_at)
    is_unanswered = invitations.c.status != "accepted"
    invited_until = sa.func.coalesce(invitations.c.answered_at, invitations.c.expires_at)
    has_commands = sa.exists().where(device_commands.c.group_id == device_command_groups.c.id)
    return [
        (device_commands, device_commands.c.finished_at < now - COMMANDS_KEPT_FOR),
        (device_command_groups, sa.and_(device_command_groups.c.deadline < now - COMMANDS_KEPT_FOR, ~has_commands)),
        (idempotency_keys, idempotency_keys.c.created_at < now - ANSWERS_KEPT_FOR),
        (refresh_tokens, refresh_tokens.c.used_at < now - USED_TOKENS_KEPT_FOR),
        (sessions, ended_at < now - SESSIONS_KEPT_FOR),
        (password_resets, password_resets.c.expires_at < now - RESETS_KEPT_FOR),
        (invitations, sa.and_(is_unanswered, invited_until < now - INVITATIONS_KEPT_FOR)),
        (
            outgoing_mail,
            sa.and_(outgoing_mail.c.status != "pending", outgoing_mail.c.created_at < now - LETTERS_KEPT_FOR),
        ),
    ]
