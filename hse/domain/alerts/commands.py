"""What a report of a device makes of its alarm."""

from dataclasses import replace
from uuid import UUID

from hse.domain.alerts.model import Alarm, AlarmReport, Place

NUM_REPORTS_MAX = 2**31 - 1


def after_report(latest: Alarm | None, report: AlarmReport, place: Place, new_id: UUID) -> tuple[Alarm, ...]:
    """The alarms that the report changes, as it leaves them, the newest last.

    `latest` is the newest alarm of this device and type, whatever its state. Reports may come late or out of order: what is older
    than the end of `latest` belongs to what is over, and a device that says twice that it is over has said it once. An alarm is of
    the place where its device stood: where that stands elsewhere now, what it says begins another one there.
    """
    if latest is None or (latest.cleared_at is not None and report.time >= latest.cleared_at):
        return () if report.is_over else (_raised(report, place, new_id),)
    if latest.cleared_at is not None:
        return () if report.is_over else (_counted(latest, report),)
    if report.is_over:
        # Unless it ended before this one began.
        return () if report.time < latest.raised_at else (_cleared(latest, report),)
    if not latest.is_at(place) and report.time >= latest.last_reported_at:
        return _cleared(latest, report), _raised(report, place, new_id)
    return (_counted(latest, report),)


def _cleared(latest: Alarm, report: AlarmReport) -> Alarm:
    return replace(latest, state="cleared", cleared_at=max(report.time, latest.raised_at))


def _raised(report: AlarmReport, place: Place, new_id: UUID) -> Alarm:
    return Alarm(
        id=new_id,
        organization_id=place.organization_id,
        establishment_id=place.establishment_id,
        device_id=report.device_id,
        type=report.type,
        severity=report.severity,
        state="active",
        message=report.message,
        value=report.value,
        unit=report.unit,
        metadata=report.metadata,
        num_reports=1,
        raised_at=report.time,
        last_reported_at=report.time,
        cleared_at=None,
    )


def _counted(latest: Alarm, report: AlarmReport) -> Alarm:
    """One report more; what it says counts when it is the newest."""
    counted = replace(
        latest,
        num_reports=min(latest.num_reports + 1, NUM_REPORTS_MAX),
        raised_at=min(latest.raised_at, report.time),
    )
    if report.time < latest.last_reported_at:
        return counted
    return replace(
        counted,
        severity=report.severity,
        message=report.message,
        value=report.value,
        unit=report.unit,
        metadata=report.metadata,
        last_reported_at=report.time,
    )
