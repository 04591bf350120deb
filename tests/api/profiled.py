"""Device profiles, provisioning keys and claims of a world, made by the database's owner."""

import json
from typing import Any
from uuid import UUID, uuid4

import psycopg

from hse.adapters.postgres.device_claims import hash_of_code
from hse.adapters.tokens import hash_of
from tests.api.world import Site, Tenant, World

SECRET = "a secret that is burned into a series of devices"
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
    return _insert(world, "device_profiles", values)


def new_provisioning_key(world: World, tenant: Tenant, site: Site | None = None, **more: Any) -> UUID:
    """Add a key with which devices get in at a site, or in the organisation; its secret is `SECRET`."""
    values = {
        "organization_id": tenant.id,
        "establishment_id": None if site is None else site.id,
        "name": "Series 7",
        "key": uuid4().hex,
        "secret_hash": hash_of(SECRET),
        **more,
    }
    return _insert(world, "provisioning_keys", values)


def new_waiting_device(world: World, tenant: Tenant) -> UUID:
    """Add a device of an organisation that stands nowhere yet."""
    return _insert(world, "devices", {"organization_id": tenant.id, "name": "Spare"})


def new_claim(world: World, device_id: UUID, code: str) -> None:
    """Let a device be claimed with a code."""
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "insert into device_claims (device_id, code_hash, created_by) values (%s, %s, %s)",
            [device_id, hash_of_code(code), world.root.id],
        )


def give_profile(world: World, device_id: UUID, profile_id: UUID) -> None:
    """Let a device have a profile."""
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update devices set profile_id = %s where id = %s", [profile_id, device_id])


def _insert(world: World, table: str, values: dict[str, Any]) -> UUID:
    names, places = ", ".join(values), ", ".join(["%s"] * len(values))
    with psycopg.connect(world.database_url) as connection:
        statement = f"insert into {table} ({names}) values ({places}) returning id"
        row = connection.execute(statement.encode(), [*values.values()]).fetchone()
    assert row is not None
    return UUID(str(row[0]))
