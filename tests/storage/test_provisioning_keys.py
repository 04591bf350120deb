"""What becomes of a device that comes with a provisioning key, as the ingest core asks for it: under its role, many at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa

from hse.adapters.postgres.tables import devices, establishments, organizations, provisioning_keys

SECRET, TOKEN = b"s" * 32, b"t" * 32
PROVISION = "select outcome, device_id from hse_provision_device(%s, %s, %s, %s)"


def a_key(engine: sa.Engine, organization_id: UUID, **more: Any) -> str:
    values = {"organization_id": organization_id, "name": "S", "key": uuid4().hex, "secret_hash": SECRET, **more}
    with engine.begin() as connection:
        connection.execute(sa.insert(provisioning_keys).values(values))
    return str(values["key"])


def a_device(engine: sa.Engine, organization_id: UUID, serial_number: str, **more: Any) -> UUID:
    values = {"organization_id": organization_id, "name": "known", "serial_number": serial_number, **more}
    with engine.begin() as connection:
        made = connection.execute(sa.insert(devices).values(values).returning(devices.c.id))
        return UUID(str(made.scalar_one()))


def ask(core: psycopg.Connection, key: str, serial_number: str | None, *, secret: bytes = SECRET) -> tuple[str, Any]:
    row = core.execute(PROVISION, [key, secret, serial_number, TOKEN]).fetchone()
    assert row is not None
    return row[0], row[1]


def device(engine: sa.Engine, device_id: UUID) -> Any:
    with engine.begin() as connection:
        return connection.execute(sa.select(devices).where(devices.c.id == device_id)).one()


def num_devices(engine: sa.Engine, key: str) -> Any:
    with engine.begin() as connection:
        counted = sa.select(provisioning_keys.c.num_devices, provisioning_keys.c.version)
        return tuple(connection.execute(counted.where(provisioning_keys.c.key == key)).one())


def test_an_unknown_device_is_registered_where_the_key_is(
    engine: sa.Engine, core: psycopg.Connection, organization_id: UUID
) -> None:
    with engine.begin() as connection:
        values = {"organization_id": organization_id, "name": "North", "timezone": "UTC"}
        made = connection.execute(sa.insert(establishments).values(values).returning(establishments.c.id))
        site = made.scalar_one()
    key = a_key(engine, organization_id, establishment_id=site)
    outcome, device_id = ask(core, key, "SN-1")
    assert outcome == "provisioned"
    row = device(engine, device_id)
    assert (row.organization_id, row.establishment_id, row.serial_number, row.name) == (
        organization_id,
        site,
        "SN-1",
        "SN-1",
    )
    assert (row.token_hash, row.is_enabled) == (TOKEN, True)
    # That a device came makes no new version of the key.
    assert num_devices(engine, key) == (1, 1)
    with engine.begin() as connection:
        written = sa.text("select organization_id, establishment_id, after from audit_entries where entity_id = :id")
        entry = connection.execute(written, {"id": str(device_id)}).one()
    assert (entry.organization_id, entry.establishment_id) == (organization_id, site)
    assert entry.after["serial_number"] == "SN-1"
    assert ask(core, key, "SN-1") == ("taken", None), "a second one with its number does not get its place"


def test_a_registered_device_gets_its_first_token_and_no_second(
    engine: sa.Engine, core: psycopg.Connection, organization_id: UUID
) -> None:
    known = a_device(engine, organization_id, "SN-2")
    key = a_key(engine, organization_id, makes_devices=False)
    assert ask(core, key, "SN-3") == ("unknown", None)
    assert ask(core, key, "SN-2") == ("provisioned", known)
    assert device(engine, known).token_hash == TOKEN
    assert ask(core, key, "SN-2") == ("taken", None)
    assert num_devices(engine, key)[0] == 1


def test_it_takes_no_device_over(engine: sa.Engine, core: psycopg.Connection, organization_id: UUID) -> None:
    gateway = a_device(engine, organization_id, "G", token_hash=b"g" * 32)
    child = a_device(engine, organization_id, "C", gateway_id=gateway)
    disabled = a_device(engine, organization_id, "D", is_enabled=False)
    with engine.begin() as connection:
        values = {"organization_id": organization_id, "name": "South", "timezone": "UTC"}
        made = connection.execute(sa.insert(establishments).values(values).returning(establishments.c.id))
        site = made.scalar_one()
    elsewhere = a_device(engine, organization_id, "E")
    key, at_site = a_key(engine, organization_id), a_key(engine, organization_id, establishment_id=site)
    for serial_number in ("G", "C", "D"):
        assert ask(core, key, serial_number) == ("taken", None)
    assert ask(core, at_site, "E") == ("taken", None)
    assert device(engine, gateway).token_hash == b"g" * 32
    for one in (child, disabled, elsewhere):
        assert device(engine, one).token_hash is None
    assert num_devices(engine, key)[0] == 0


def test_a_key_that_is_not_good_is_one_answer(
    engine: sa.Engine, core: psycopg.Connection, organization_id: UUID
) -> None:
    good = a_key(engine, organization_id)
    past = datetime.now(UTC) - timedelta(seconds=1)
    for key, secret in (
        ("unknown", SECRET),
        (good, b"x" * 32),
        (a_key(engine, organization_id, is_enabled=False), SECRET),
        (a_key(engine, organization_id, expires_at=past), SECRET),
    ):
        assert ask(core, key, "SN-4", secret=secret) == ("refused", None)
    with engine.begin() as connection:
        asleep = sa.update(organizations).where(organizations.c.id == organization_id).values(is_active=False)
        connection.execute(asleep)
    assert ask(core, good, "SN-4") == ("refused", None)


@pytest.mark.parametrize("wrong", [None, "", "x" * 201, "two\nlines"])
def test_what_is_no_serial_number_registers_nothing(
    engine: sa.Engine, core: psycopg.Connection, organization_id: UUID, wrong: str | None
) -> None:
    key = a_key(engine, organization_id)
    assert ask(core, key, wrong) == ("invalid", None)
    assert num_devices(engine, key)[0] == 0


def test_many_at_once_are_no_more_than_the_key_is_good_for(
    engine: sa.Engine, core_url: str, organization_id: UUID
) -> None:
    key = a_key(engine, organization_id, devices_max=5)

    def come(number: int) -> str:
        with psycopg.connect(core_url, autocommit=True) as connection:
            connection.execute("set role hse_ingest")
            return ask(connection, key, f"SN-{number % 10}")[0]

    with ThreadPoolExecutor(max_workers=8) as pool:
        outcomes = list(pool.map(come, range(20)))
    assert outcomes.count("provisioned") == 5
    assert set(outcomes) <= {"provisioned", "full", "taken"}
    assert num_devices(engine, key)[0] == 5


def test_the_core_reads_and_writes_no_keys(core: psycopg.Connection) -> None:
    for statement in ("select key from provisioning_keys", "update provisioning_keys set devices_max = 9"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            core.execute(statement.encode())
