"""Alarms of devices, and what a device says of one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID

from hse.domain.policy import Reach
from hse.domain.relevant import RelevantEvent

Severity = Literal["critical", "major", "minor", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
AlarmState = Literal["active", "acknowledged", "cleared"]
# Of a device that does not say how bad it is: rather looked at for nothing than overlooked.
SEVERITY_UNTOLD: Severity = "major"
TYPE_UNTOLD = "alarm"
TYPE_CHARS_MAX = 100
MESSAGE_CHARS_MAX = 500
# Under which names devices say which alarm it is, and what they call one that is over.
TYPE_NAMES = ("alarm_type", "alarm", "type", "code")
STATE_NAMES = ("state", "status")
WORDS_FOR_OVER = frozenset({"cleared", "clear", "inactive", "normal", "resolved", "ok", "off", "ended"})
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One time that an alarm of a device was on, from when it was raised until it is cleared.

    It stands where the device stood when it was raised.
    """

    id: UUID
    organization_id: UUID
    establishment_id: UUID | None
    device_id: UUID
    type: str
    severity: Severity
    state: AlarmState
    message: str | None
    value: float | None
    unit: str | None
    metadata: Mapping[str, Any]
    num_reports: int
    raised_at: datetime
    last_reported_at: datetime
    cleared_at: datetime | None

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it."""
        return reach.has_site(self.organization_id, self.establishment_id)

    def is_at(self, place: "Place") -> bool:
        """Whether its device stood there."""
        return (self.organization_id, self.establishment_id) == (place.organization_id, place.establishment_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmReport:
    """What a device says of one of its alarms: that it is on, or that it is over."""

    device_id: UUID
    time: datetime
    type: str
    severity: Severity
    is_over: bool
    message: str | None
    value: float | None
    unit: str | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a device stands."""

    organization_id: UUID
    establishment_id: UUID | None


def report_of(event: RelevantEvent) -> AlarmReport:
    """What an event of the type `alarm` says. A device that sends no metadata has one alarm, which is on."""
    said = event.metadata
    severity = str(said.get("severity", "")).strip().lower()
    states = [str(said[name]).strip().lower() for name in STATE_NAMES if name in said]
    message = said.get("message")
    return AlarmReport(
        device_id=event.device_id,
        time=event.time,
        type=_type_of(said),
        severity=next((one for one in SEVERITIES if one == severity), SEVERITY_UNTOLD),
        is_over=said.get("active") is False or any(state in WORDS_FOR_OVER for state in states),
        message=message[:MESSAGE_CHARS_MAX] if isinstance(message, str) else None,
        value=event.value,
        unit=event.unit,
        metadata=said,
    )


def _type_of(said: Mapping[str, Any]) -> str:
    for name in TYPE_NAMES:
        word = said.get(name)
        if isinstance(word, str) and (line := CONTROL_CHARACTERS.sub(" ", word).strip()):
            return line[:TYPE_CHARS_MAX]
    return TYPE_UNTOLD
