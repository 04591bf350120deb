"""Device profiles of a world, made by the database's owner."""

import json
from typing import Any
from uuid import UUID

import psycopg

from tests.api.world import Tenant, World

POINT = {
    "key": "power",
    "name": "Active power",
    "unit": "W",
    "type": "number",
    "min": None,
    "max": None,
    "counter": {"kind": "none"},
}


def new_profile(world: World, tenant: Tenant, *, name: str = "Meter", **more: Any) -> UUID:
    """Add a profile of an organisation, whose devices speak HDP."""
    values = {
        "organization_id": tenant.id,
        "name": name,
        "points": json.dumps([POINT]),
        "format": json.dumps({"kind": "hdp"}),
        **more,
    }
    with psycopg.connect(world.database_url) as connection:
        row = connection.execute(
            f"insert into device_profiles ({', '.join(values)}) values ({', '.join(['%s'] * len(values))})"
            " returning id".encode(),
            [*values.values()],
        ).fetchone()
    assert row is not None
    return UUID(str(row[0]))


def give_profile(world: World, device_id: UUID, profile_id: UUID) -> None:
    """Let a device have a profile."""
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update devices set profile_id = %s where id = %s", [profile_id, device_id])
