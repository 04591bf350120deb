"""Places, guests and bookings, made by the database's owner."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa

from hse.adapters.postgres.booking_tables import booking_history, booking_queue, booking_settings, bookings

# A moment that is no round number of anything.
NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """An area that can be booked, and somebody who books it."""

    organization_id: UUID
    establishment_id: UUID
    area_id: UUID
    guest_id: UUID


def a_room(engine: sa.Engine) -> Room:
    """A new organisation with one of everything."""
    with engine.begin() as connection:

        def one(statement: str, **given: Any) -> UUID:
            found: UUID = connection.execute(sa.text(statement + " returning id"), given).scalar_one()
            return found

        owner = one("insert into organizations (name) values (:name)", name=f"Hotel {uuid4()}")
        site = one(
            "insert into establishments (organization_id, name, timezone) values (:owner, 'Beach', 'America/Santiago')",
            owner=owner,
        )
        area = one(
            "insert into areas (organization_id, establishment_id, name, type) values (:owner, :site, 'Room', 'room')",
            owner=owner,
            site=site,
        )
        guest = one(
            "insert into guests (organization_id, first_name, last_name) values (:owner, 'Ana', 'Soto')", owner=owner
        )
    return Room(organization_id=owner, establishment_id=site, area_id=area, guest_id=guest)


def book(engine: sa.Engine, room: Room, check_in: datetime, check_out: datetime, **more: Any) -> UUID:
    """A booking of the room."""
    values = {
        "organization_id": room.organization_id,
        "establishment_id": room.establishment_id,
        "area_id": room.area_id,
        "guest_id": room.guest_id,
        "check_in": check_in,
        "check_out": check_out,
        "free_from": check_out,
        "confirmation_code": uuid4().hex[:10],
        **more,
    }
    with engine.begin() as connection:
        booked: UUID = connection.execute(sa.insert(bookings).values(values).returning(bookings.c.id)).scalar_one()
    return booked


def change(engine: sa.Engine, booking_id: UUID, **changes: Any) -> None:
    """Change a booking."""
    with engine.begin() as connection:
        connection.execute(sa.update(bookings).where(bookings.c.id == booking_id).values(changes))


def allow_no_shows(engine: sa.Engine, room: Room, grace_minutes: int) -> None:
    """Have the establishment release what nobody has confirmed."""
    settings = booking_settings.c.establishment_id == room.establishment_id
    with engine.begin() as connection:
        connection.execute(sa.update(booking_settings).where(settings).values(no_show_grace_minutes=grace_minutes))


def status_of(engine: sa.Engine, booking_id: UUID) -> str:
    """The state of a booking."""
    with engine.connect() as connection:
        status: str = connection.execute(sa.select(bookings.c.status).where(bookings.c.id == booking_id)).scalar_one()
    return status


def what_happened(engine: sa.Engine, booking_id: UUID) -> list[str]:
    """The history of a booking, in order."""
    statement = sa.select(booking_history.c.action).where(booking_history.c.booking_id == booking_id)
    with engine.connect() as connection:
        return list(connection.execute(statement.order_by(booking_history.c.id)).scalars())


def queued(engine: sa.Engine, booking_id: UUID) -> list[datetime]:
    """When the booking is to be looked at."""
    statement = sa.select(booking_queue.c.due_at).where(booking_queue.c.booking_id == booking_id)
    with engine.connect() as connection:
        return list(connection.execute(statement.order_by(booking_queue.c.due_at)).scalars())
