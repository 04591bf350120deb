"""What the noun needs of a transaction. Establishments and areas are known here only as places, devices not at all."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from hse.domain.booking.model import Booking, BookingHistoryEntry, Taken
from hse.domain.booking.notification_views import BookingNotification
from hse.domain.booking.views import BookingCalendar, BookingSettings, CalendarToken, Companion, Guest
from hse.domain.paging import Page, PageQuery
from hse.domain.policy import Reach
from hse.domain.work import Finds, Lists, Placed, Store, Work


class Owner(Protocol):
    """An organisation."""

    @property
    def id(self) -> UUID:
        """Its id."""


class Site(Placed, Protocol):
    """An establishment."""

    @property
    def id(self) -> UUID:
        """Its id."""

    @property
    def organization_id(self) -> UUID:
        """Whose it is."""

    @property
    def timezone(self) -> str:
        """The IANA name of its time zone."""


class Part(Placed, Protocol):
    """An area."""

    @property
    def id(self) -> UUID:
        """Its id."""

    @property
    def organization_id(self) -> UUID:
        """Whose it is."""

    @property
    def establishment_id(self) -> UUID:
        """Of which establishment it is a part."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def type(self) -> str:
        """What it is."""


class Parts(Finds[Part], Lists[Any], Protocol):
    """The areas."""


class GuestStore(Store[Guest], Protocol):
    """The guests, as the actor may see them: where he may not read personal data, they come masked."""

    async def companions(self, guest_id: UUID, reach: Reach) -> list[Companion]:
        """Who accompanies a guest and is within the reach."""

    async def join(self, guest: Guest, companion: Guest, relationship: str, inverse: str) -> Companion:
        """Have two guests accompany each other, or say anew what they are to each other."""

    async def part(self, guest: Guest, companion_id: UUID) -> bool:
        """Have two guests not accompany each other any more; False when they did not."""

    async def erase(self, before: Guest, now: datetime) -> Guest:
        """Empty the row of a guest and all that others hold of him. Raises `GuestStillExpected`."""


class BookingStore(Store[Booking], Protocol):
    """The bookings. Adding and changing raise `SlotTaken`."""

    async def history(self, booking_id: UUID, reach: Reach, query: PageQuery) -> Page[BookingHistoryEntry]:
        """A page of what happened to a booking, also to one that was deleted."""

    async def taken(self, area_ids: Sequence[UUID], since: datetime, until: datetime) -> Mapping[UUID, list[Taken]]:
        """When these areas are taken by bookings that touch the period, in order."""


class BookingSettingsStore(Protocol):
    """The settings of establishments: each has its own from the beginning."""

    async def find(self, establishment_id: UUID) -> BookingSettings:
        """Those of an establishment that this transaction sees."""

    async def change(
        self, before: BookingSettings, changes: Mapping[str, Any], *, version: int | None = None
    ) -> BookingSettings:
        """Change them, and how long areas are kept free behind what is booked. Raises `Stale`."""


class BookingCalendarStore(Protocol):
    """The calendars of areas that have a link."""

    async def find(self, area_id: UUID) -> BookingCalendar | None:
        """That of an area that this transaction sees."""

    async def issue(self, area: Part, token: CalendarToken) -> BookingCalendar:
        """Let an area's calendar be read with this token and no other."""

    async def revoke(self, before: BookingCalendar) -> None:
        """Let it be read by nobody."""


class BookingWork(Work, Protocol):
    """A transaction with what this noun needs."""

    @property
    def guests(self) -> GuestStore:
        """The guests."""

    @property
    def bookings(self) -> BookingStore:
        """The bookings."""

    @property
    def booking_notifications(self) -> Lists[BookingNotification]:
        """What guests were told."""

    @property
    def booking_settings(self) -> BookingSettingsStore:
        """The settings."""

    @property
    def booking_calendars(self) -> BookingCalendarStore:
        """The calendars."""

    @property
    def organizations(self) -> Finds[Owner]:
        """The organisations."""

    @property
    def establishments(self) -> Finds[Site]:
        """The establishments."""

    @property
    def areas(self) -> Parts:
        """The areas."""

    def new_confirmation_code(self) -> str:
        """A code that nobody can guess, of letters and digits that nobody mistakes for others."""

    def new_calendar_token(self) -> CalendarToken:
        """A token that nobody can guess."""
