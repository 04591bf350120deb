"""How an establishment takes bookings."""

from dataclasses import dataclass
from uuid import UUID

from hse.domain.booking.notifications import NotificationChannel
from hse.domain.booking.ports import BookingWork
from hse.domain.booking.views import BookingSettings
from hse.domain.errors import Forbidden, Invalid, NotFound
from hse.domain.work import UNCHANGED, Unchanged, changes_of, seen

MARGIN_MINUTES_MAX = 7 * 24 * 60
CODE_LEAD_HOURS_MAX = 30 * 24
CODE_USAGES_MAX = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeBookingSettings:
    """What changes of the settings."""

    check_in_margin_minutes: int | Unchanged = UNCHANGED
    check_out_margin_minutes: int | Unchanged = UNCHANGED
    no_show_grace_minutes: int | Unchanged | None = UNCHANGED
    code_deadline_minutes: int | Unchanged = UNCHANGED
    code_lead_hours: int | Unchanged = UNCHANGED
    check_out_reminder_minutes: int | Unchanged = UNCHANGED
    max_code_usages: int | Unchanged | None = UNCHANGED
    notification_channels: list[NotificationChannel] | Unchanged = UNCHANGED


async def booking_settings(work: BookingWork, establishment_id: UUID) -> BookingSettings:
    """How an establishment takes bookings. Raises `Forbidden`, `NotFound`."""
    reach = work.actor.require("read_booking")
    await seen(work.establishments, work.actor.reach("read_establishment"), establishment_id)
    found = await work.booking_settings.find(establishment_id)
    if not found.is_within(reach):
        raise NotFound("establishment", establishment_id)
    return found


async def change_booking_settings(
    work: BookingWork, establishment_id: UUID, command: ChangeBookingSettings, *, version: int | None = None
) -> BookingSettings:
    """Change how an establishment takes bookings.

    Longer margins hold for what is booked already, too, as far as the next stay leaves room.

    Raises `NotFound`, `Forbidden`, `Invalid`, `Stale`, `Contended`.
    """
    channels = command.notification_channels
    if not isinstance(channels, Unchanged) and len(set(channels)) < len(channels):
        raise Invalid("notification_channels", "must name each channel once")
    await seen(work.establishments, work.actor.reach("read_establishment"), establishment_id)
    before = await work.booking_settings.find(establishment_id)
    if not before.is_within(work.actor.reach("update_booking_settings")):
        raise Forbidden("update_booking_settings")
    return await work.booking_settings.change(before, changes_of(command), version=version)
