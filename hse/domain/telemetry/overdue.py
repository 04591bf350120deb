"""Devices that are overdue: from which something is expected every so many seconds, and nothing has come for longer.

What is expected stands in the profile of a device (`expected_interval_s`). A device is waited for from its first event on, while it
is enabled. What counts is the time of its newest event: one whose clock is behind, or that tells its past, tells nothing of now.
"""

from datetime import datetime, timedelta

# One that comes late, or two that are lost, is no reason to worry somebody.
INTERVALS_MISSED = 3
WAIT_MIN = timedelta(seconds=60)


def patience(expected_interval_s: int) -> timedelta:
    """How long after its newest event a device is overdue."""
    return max(INTERVALS_MISSED * timedelta(seconds=expected_interval_s), WAIT_MIN)


def overdue_since(newest: datetime | None, expected_interval_s: int | None, now: datetime) -> datetime | None:
    """Since when a device is overdue; None when it is not, has never told anything, or nobody waits for it."""
    if newest is None or expected_interval_s is None:
        return None
    due = newest + patience(expected_interval_s)
    return due if due <= now else None
