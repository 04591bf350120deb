"""What the worker and the database tell all processes: alarms, devices that changed, people who see more or less now."""

import logging
from uuid import UUID

import msgspec

from hse.domain.telemetry.live import LiveAlarm

logger = logging.getLogger(__name__)


def alarm_of(payload: str) -> LiveAlarm | None:
    """The alarm that a notice is about; None for a notice of another kind, which a newer worker may send."""
    try:
        told = msgspec.json.decode(payload)
        return msgspec.convert(told, LiveAlarm) if told.get("kind") == "alarm" else None
    except (msgspec.MsgspecError, AttributeError):
        logger.warning("a notice is not understood")
        return None


def ids_of(payload: str) -> set[UUID] | None:
    """The ids that a notification names; None when it may be about any (`reload`, `all`)."""
    try:
        return {UUID(one) for one in payload.split(",")}
    except ValueError:
        return None
