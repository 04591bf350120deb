"""Guests, bookings and calendars of a world, made by the database's owner."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

from hse.adapters.sealing import Sealer
from tests.api.world import SECRET_KEY, Site, Tenant, World


def _insert(world: World, statement: str, *values: object) -> UUID:
    with psycopg.connect(world.database_url) as connection:
        row = connection.execute(f"{statement} returning id".encode(), values).fetchone()
    assert row is not None
    return UUID(str(row[0]))


def new_guest(world: World, tenant: Tenant, site: Site | None = None, **more: Any) -> UUID:
    """Add a guest, registered at a site or of the organisation as a whole."""
    values = {"first_name": "Carmen", "last_name": "Rojas", **more}
    return _insert(
        world,
        f"insert into guests (organization_id, establishment_id, {', '.join(values)})"
        f" values (%s, %s, {', '.join(['%s'] * len(values))})",
        tenant.id,
        None if site is None else site.id,
        *values.values(),
    )


def new_booking(world: World, tenant: Tenant, site: Site, guest_id: UUID, *, days_ahead: int = 30) -> UUID:
    """Add a booking of a site's area for a night so many days ahead."""
    return _insert(
        world,
        "insert into bookings (organization_id, establishment_id, area_id, guest_id, check_in, check_out, free_from,"
        " confirmation_code, created_by) values (%s, %s, %s, %s, now() + %s, now() + %s, now() + %s, %s, %s)",
        tenant.id,
        site.id,
        site.area_id,
        guest_id,
        timedelta(days=days_ahead),
        timedelta(days=days_ahead + 1),
        timedelta(days=days_ahead + 1, hours=1),
        uuid4().hex[:10],
        world.root.id,
    )


def join(world: World, tenant: Tenant, guest_id: UUID, companion_id: UUID) -> None:
    """Have two guests accompany each other."""
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "insert into guest_companions (guest_id, companion_id, organization_id, relationship)"
            " values (%(one)s, %(other)s, %(tenant)s, 'friend'), (%(other)s, %(one)s, %(tenant)s, 'friend')",
            {"one": guest_id, "other": companion_id, "tenant": tenant.id},
        )


def give_calendar(world: World, tenant: Tenant, site: Site) -> None:
    """Give the calendar of a site's area a link that nobody knows."""
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "insert into booking_calendars (area_id, organization_id, establishment_id, token_hash, created_by)"
            " values (%s, %s, %s, sha256(%s), %s)",
            [site.area_id, tenant.id, site.id, uuid4().bytes, world.root.id],
        )


def make_lock(world: World, site: Site) -> None:
    """Have a site's device be the lock of its area."""
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "update devices set device_type = 'doorlock', area_id = %s where id = %s", [site.area_id, site.device_id]
        )


def new_notification(world: World, tenant: Tenant, site: Site, booking_id: UUID, guest_id: UUID, **more: Any) -> UUID:
    """Add a notification of a booking that could not be sent."""
    content = b'{"subject": "Tu reserva", "message": "Hola, Carmen: \xe2\x80\xa2\xe2\x80\xa2"}'
    values = {
        "organization_id": tenant.id,
        "establishment_id": site.id,
        "booking_id": booking_id,
        "guest_id": guest_id,
        "type": "booking_created",
        "channel": "email",
        "terms": "",
        "status": "failed",
        "reason": "away",
        "language": "es",
        "recipient": "carmen@example.com",
        "sealed_content": Sealer(SECRET_KEY).seal(content),
        "num_attempts": 8,
        "num_tries": 8,
        "next_attempt_at": datetime.now(UTC),
        "created_at": datetime.now(UTC),
        **more,
    }
    return _insert(
        world,
        f"insert into booking_notifications ({', '.join(values)}) values ({', '.join(['%s'] * len(values))})",
        *values.values(),
    )


def new_template(world: World, tenant: Tenant, **more: Any) -> UUID:
    """Add the words of an organisation for what guests are told of a new booking."""
    values = {
        "organization_id": tenant.id,
        "type": "booking_created",
        "channel": "email",
        "language": "es",
        "subject": "Tu reserva",
        "message": "Hola, {{guest_first_name}}",
        **more,
    }
    return _insert(
        world,
        f"insert into notification_templates ({', '.join(values)}) values ({', '.join(['%s'] * len(values))})",
        *values.values(),
    )


def new_door_code(
    world: World, tenant: Tenant, site: Site, booking_id: UUID | None, *, digits: str = "482913", state: str = "failed"
) -> UUID:
    """Add a code of a site's lock: a booking's own, or for none a backup code that is on it."""
    is_on_lock = state in ("set", "active")
    return _insert(
        world,
        "insert into door_lock_codes (organization_id, establishment_id, device_id, booking_id, created_by, is_backup,"
        " sealed_code, code_mac, valid_from, valid_until, decided_at, deadline, state, reason, on_lock_from, on_lock_until,"
        " may_be_on_lock) values (%s, %s, %s, %s, %s, %s, %s, sha256(%s), now(), now() + interval '60 days', now(), now(), %s,"
        " %s, %s, %s, %s)",
        *(tenant.id, site.id, site.device_id, booking_id, world.root.id, booking_id is None),
        *(Sealer(SECRET_KEY).seal(digits.encode()), digits.encode(), state, None if is_on_lock else "offline"),
        *((datetime.now(UTC), datetime.now(UTC) + timedelta(days=60)) if is_on_lock else (None, None)),
        is_on_lock,
    )
