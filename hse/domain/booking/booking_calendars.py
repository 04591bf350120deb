"""The calendar of an area for programs that know iCalendar: who has its link reads when the area is taken, and nothing of whom."""

from uuid import UUID

from hse.domain.booking.ports import BookingWork, Part
from hse.domain.booking.views import BookingCalendar, IssuedBookingCalendar
from hse.domain.errors import NotFound
from hse.domain.work import within_act

ACT = "manage_booking_calendar"


async def booking_calendar(work: BookingWork, area_id: UUID) -> BookingCalendar:
    """Whether an area's calendar has a link, and since when. Raises `NotFound`, `Forbidden`."""
    area = await _managed(work, area_id)
    return await _found(work, area.id)


async def issue_booking_calendar(work: BookingWork, area_id: UUID) -> IssuedBookingCalendar:
    """Give an area's calendar a new link, told this once; one that it had is worth nothing from the commit on.

    Raises `NotFound`, `Forbidden`.
    """
    area = await _managed(work, area_id)
    token = work.new_calendar_token()
    await work.booking_calendars.issue(area, token)
    path = f"/api/v1/booking-calendars/{area.id}/{token.text}"
    return IssuedBookingCalendar(area_id=area.id, path=path, token=token.text)


async def revoke_booking_calendar(work: BookingWork, area_id: UUID) -> None:
    """Take the link of an area's calendar away. Raises `NotFound`, `Forbidden`."""
    area = await _managed(work, area_id)
    await work.booking_calendars.revoke(await _found(work, area.id))


async def _managed(work: BookingWork, area_id: UUID) -> Part:
    return await within_act(work, work.areas, area_id, see="read_area", act=ACT)


async def _found(work: BookingWork, area_id: UUID) -> BookingCalendar:
    found = await work.booking_calendars.find(area_id)
    if found is None:
        raise NotFound("booking calendar of area", area_id)
    return found
