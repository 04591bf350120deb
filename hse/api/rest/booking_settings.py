"""How establishments take bookings."""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, get, patch
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, UnsetType

from hse.api.acting import Acts, Version
from hse.api.bodies import Body, given
from hse.domain.booking import booking_settings
from hse.domain.booking.notifications import CHANNELS, NotificationChannel
from hse.domain.booking.views import BookingSettings

Minutes = Annotated[int, msgspec.Meta(ge=0, le=booking_settings.MARGIN_MINUTES_MAX, examples=[60])]
LeadHours = Annotated[int, msgspec.Meta(ge=0, le=booking_settings.CODE_LEAD_HOURS_MAX, examples=[24])]
Usages = Annotated[int, msgspec.Meta(ge=1, le=booking_settings.CODE_USAGES_MAX, examples=[50])]
Channels = Annotated[list[NotificationChannel], msgspec.Meta(max_length=len(CHANNELS), examples=[["email", "sms"]])]


class BookingSettingsChange(Body):
    """What changes of how an establishment takes bookings."""

    check_in_margin_minutes: Minutes | UnsetType = UNSET
    check_out_margin_minutes: Minutes | UnsetType = UNSET
    no_show_grace_minutes: Minutes | UnsetType | None = UNSET
    code_deadline_minutes: Minutes | UnsetType = UNSET
    code_lead_hours: LeadHours | UnsetType = UNSET
    check_out_reminder_minutes: Minutes | UnsetType = UNSET
    max_code_usages: Usages | UnsetType | None = UNSET
    notification_channels: Channels | UnsetType = UNSET


@get("/establishments/{establishment_id:uuid}/booking-settings")
async def get_booking_settings(acting: Acts, establishment_id: FromPath[UUID]) -> BookingSettings:
    """Read how an establishment takes bookings."""
    return await acting.read(lambda work: booking_settings.booking_settings(work, establishment_id))


@patch("/establishments/{establishment_id:uuid}/booking-settings")
async def change_booking_settings(
    acting: Acts, establishment_id: FromPath[UUID], data: JSONBody[BookingSettingsChange], version: Version
) -> BookingSettings:
    """Change how an establishment takes bookings.

    Longer margins hold for what is booked already, too, as far as the next stay leaves room.
    """
    command = booking_settings.ChangeBookingSettings(**given(data))
    return await acting.run(
        lambda work: booking_settings.change_booking_settings(work, establishment_id, command, version=version)
    )


router = Router(path="/", tags=["bookings"], route_handlers=[get_booking_settings, change_booking_settings])
