"""What the noun shows beside the bookings themselves: guests, settings, calendars."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal
from uuid import UUID

from hse.domain.booking.model import Booking
from hse.domain.booking.notification_views import BookingNotification
from hse.domain.booking.notifications import NotificationChannel
from hse.domain.errors import DomainError, ErrorKind
from hse.domain.policy import Reach

# Whoever may do it sees guests as they are; others see them masked.
SEE_PERSONAL_DATA = "read_guest_personal_data"
# In which guests are written to.
Language = Literal["es", "en"]


class GuestStillExpected(DomainError):
    """A guest with a booking that is still to end cannot be erased: he would be let in nowhere, or by nobody's name."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "guests.still-expected"

    def __init__(self) -> None:
        super().__init__("this guest has a booking that has not ended: cancel it, or wait for its check-out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A guest. Where `is_masked`, names are first letters and the rest is left out; an erased one has nothing left.

    `country` is two letters (ISO 3166-1); `language` is the one that he is written to in.
    """

    id: UUID
    organization_id: UUID
    establishment_id: UUID | None
    first_name: str
    last_name: str
    email: str | None
    phone: str | None
    document_type: str | None
    document_number: str | None
    country: str | None
    language: Language
    metadata: Mapping[str, Any]
    is_masked: bool
    erased_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers where he was registered. Bookings let others see him, too: that is the store's to say."""
        return reach.has_site(self.organization_id, self.establishment_id)

    def masked(self) -> "Guest":
        """What may be shown to who may not read personal data."""
        return replace(
            self,
            first_name=initial(self.first_name),
            last_name=initial(self.last_name),
            email=None,
            phone=None,
            document_type=None,
            document_number=None,
            country=None,
            metadata={},
            is_masked=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """A guest who accompanies another one; `relationship` is what he is to that one."""

    guest_id: UUID
    companion_id: UUID
    relationship: str
    added_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestExport:
    """All that is kept of a guest, as far as the caller may see it."""

    guest: Guest
    companions: list[Companion]
    bookings: list[Booking]
    notifications: list[BookingNotification]


def initial(name: str) -> str:
    """The first letter of a name."""
    return f"{name[0]}." if name else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingSettings:
    """How an establishment takes bookings. None of `no_show_grace_minutes` is never, of `max_code_usages` no limit.

    Guests are told things on all of `notification_channels`; on none: nothing at all.
    """

    establishment_id: UUID
    organization_id: UUID
    check_in_margin_minutes: int
    check_out_margin_minutes: int
    no_show_grace_minutes: int | None
    code_deadline_minutes: int
    code_lead_hours: int
    check_out_reminder_minutes: int
    max_code_usages: int | None
    notification_channels: list[NotificationChannel]
    version: int
    created_at: datetime
    updated_at: datetime

    @property
    def gap(self) -> timedelta:
        """How long an area is kept free between two stays: so long that both margins hold."""
        return timedelta(minutes=max(self.check_in_margin_minutes, self.check_out_margin_minutes))

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it."""
        return reach.has_site(self.organization_id, self.establishment_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarToken:
    """A token as it is told once, and as it is kept."""

    text: str = field(repr=False)
    token_hash: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingCalendar:
    """That an area's calendar has a link; what it is was told once."""

    area_id: UUID
    organization_id: UUID
    establishment_id: UUID
    created_by: UUID
    created_at: datetime

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it."""
        return reach.has_site(self.organization_id, self.establishment_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedBookingCalendar:
    """The link of an area's calendar, told this once: `path` below the address of the api, and the token in it."""

    area_id: UUID
    path: str = field(repr=False)
    token: str = field(repr=False)
