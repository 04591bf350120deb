"""A house whose worker tells its guests things, and who hears it."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa

from hse.adapters.channels import Channel, Notice, NoticeNotSent
from hse.adapters.mail import Hold
from hse.adapters.postgres.booking_tables import booking_settings, guests
from hse.adapters.postgres.notification_keeper import keep_notifications
from hse.adapters.postgres.notification_tables import booking_notifications
from hse.adapters.sealing import Sealer
from hse.domain.booking.notifications import NotificationChannel
from hse.wiring.bookings import BookingKeeper
from hse.wiring.notifications import NotificationSender
from tests.api.world import SECRET_KEY
from tests.storage.bookings import book
from tests.storage.door_codes import DAY, House, a_house

notification = booking_notifications.c


@dataclass
class Ear:
    """A channel that hears everything; `refusals` are raised first, one each; `before` is called before it hears."""

    heard: list[Notice] = field(default_factory=list)
    refusals: list[Exception] = field(default_factory=list)
    before: Callable[[Notice], None] = lambda _: None
    after: Callable[[Notice], None] = lambda _: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    async def send(self, notice: Notice, held: Hold) -> None:
        """Hear one."""
        with held():
            self.before(notice)
            if self.refusals:
                raise self.refusals.pop(0)
            with self.lock:
                self.heard.append(notice)
            self.after(notice)

    @property
    def types(self) -> list[str]:
        """What was told, in order."""
        return [notice.type for notice in self.heard]


@dataclass
class Hotel:
    """A house, and the senders of its worker."""

    house: House
    ear: Ear = field(default_factory=Ear)

    def sender(self, name: NotificationChannel = "email", channel: Channel | None = None) -> NotificationSender:
        """One who sends."""
        return NotificationSender(
            engine=self.house.engine, sealer=Sealer(SECRET_KEY), name=name, channel=channel or self.ear
        )

    def send(self, name: NotificationChannel = "email", channel: Channel | None = None) -> int:
        """Send all that is due; returns how many were tried."""
        sender, tried = self.sender(name, channel), 0
        while sender.send_one(self.house.now):
            tried += 1
            assert tried < 1000, "the sender does not come to rest"
        return tried

    def run(self) -> None:
        """Worker, locks and sender, until nothing is left to be done now."""
        self.house.run()
        self.send()

    def rows(self, booking_id: UUID) -> Sequence[Any]:
        """The notifications of a booking, in order."""
        statement = sa.select(*notification).where(notification.booking_id == booking_id).order_by(notification.number)
        with self.house.engine.connect() as connection:
            return connection.execute(statement).all()

    def states(self, booking_id: UUID) -> list[tuple[str, str]]:
        """Type and status of each."""
        return [(row.type, row.status) for row in self.rows(booking_id)]

    def said(self, row: Any) -> dict[str, str]:
        """What is kept of what was said."""
        found: dict[str, str] = msgspec.json.decode(Sealer(SECRET_KEY).unseal(row.sealed_content))
        return found

    def use(self, *channels: str) -> None:
        """Have guests told things on these."""
        where = booking_settings.c.establishment_id == self.house.room.establishment_id
        with self.house.engine.begin() as connection:
            connection.execute(sa.update(booking_settings).where(where).values(notification_channels=[*channels]))

    def change_guest(self, **changes: Any) -> None:
        """Change the guest."""
        where = guests.c.id == self.house.room.guest_id
        with self.house.engine.begin() as connection:
            connection.execute(sa.update(guests).where(where).values(changes))


def a_hotel(engine: sa.Engine) -> Hotel:
    """A hotel with a guest who has all there is, whose worker makes codes and tells of them."""
    house = a_house(engine)
    consequences = [*house.keeper.consequences, keep_notifications]
    house.keeper = BookingKeeper(engine=engine, consequences=consequences)
    hotel = Hotel(house)
    hotel.change_guest(email="ana@example.com", phone="+56 9 1234 5678")
    return hotel


def pending_booking(hotel: Hotel, check_in: datetime | None = None) -> UUID:
    """A booking that nobody has confirmed, for two nights."""
    begins = check_in or hotel.house.now + 2 * DAY
    return book(hotel.house.engine, hotel.house.room, begins, begins + 2 * DAY)


def not_sent(reason: str = "away", **more: bool) -> NoticeNotSent:
    """A refusal."""
    return NoticeNotSent(reason, **more)
