"""What becomes of a device that lets itself be claimed, as the ingest core asks for it: under its role."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa

from hse.adapters.postgres.tables import device_claims, devices, establishments

CODE, OTHER_CODE = b"c" * 32, b"d" * 32
HOUR_MS = 3600 * 1000


@pytest.fixture(autouse=True)
def no_code_of_another_test(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.delete(device_claims))


def a_device(engine: sa.Engine, organization_id: UUID, **more: Any) -> UUID:
    values = {"organization_id": organization_id, "name": "meter", **more}
    with engine.begin() as connection:
        made = connection.execute(sa.insert(devices).values(values).returning(devices.c.id))
        return UUID(str(made.scalar_one()))


def offer(core: psycopg.Connection, device_id: UUID, code: bytes = CODE, duration_ms: int = HOUR_MS) -> str:
    row = core.execute("select hse_offer_claim(%s, %s, %s)", [device_id, code, duration_ms]).fetchone()
    assert row is not None
    return str(row[0])


def kept(engine: sa.Engine, device_id: UUID) -> Any:
    with engine.begin() as connection:
        return connection.execute(sa.select(*device_claims.c).where(device_claims.c.device_id == device_id)).one()


def audited(engine: sa.Engine, device_id: UUID) -> int:
    count = sa.text("select count(*) from audit_entries where action = 'device.offer_claim' and entity_id = :id")
    with engine.begin() as connection:
        return int(connection.execute(count, {"id": str(device_id)}).scalar_one())


def site_of(engine: sa.Engine, organization_id: UUID) -> UUID:
    values = {"organization_id": organization_id, "name": uuid4().hex, "timezone": "UTC"}
    with engine.begin() as connection:
        made = connection.execute(sa.insert(establishments).values(values).returning(establishments.c.id))
        return UUID(str(made.scalar_one()))


def claimed(engine: sa.Engine, code: bytes, establishment_id: UUID) -> Any:
    """As somebody who reaches everything."""
    with engine.begin() as connection:
        connection.execute(sa.text("select set_config('hse.is_root', 'true', true)"))
        statement = sa.text("select hse_claim_device(:code, :site)")
        return connection.execute(statement, {"code": code, "site": establishment_id}).scalar_one()


def test_a_device_offers_itself_and_says_so_again_without_news(
    engine: sa.Engine, core: psycopg.Connection, organization_id: UUID
) -> None:
    device_id = a_device(engine, organization_id)
    assert [offer(core, device_id), offer(core, device_id)] == ["offered", "offered"]
    row = kept(engine, device_id)
    assert (row.code_hash, row.created_by) == (CODE, None)
    assert timedelta(minutes=59) < row.expires_at - datetime.now(UTC) <= timedelta(hours=1)
    assert audited(engine, device_id) == 1
    assert offer(core, device_id, OTHER_CODE) == "offered"
    assert kept(engine, device_id).code_hash == OTHER_CODE
    assert audited(engine, device_id) == 2


def test_an_offer_changes_nothing_that_stands(
    engine: sa.Engine, core: psycopg.Connection, organization_id: UUID
) -> None:
    site = site_of(engine, organization_id)
    placed = a_device(engine, organization_id, establishment_id=site)
    disabled = a_device(engine, organization_id, is_enabled=False)
    coded, first, second = (a_device(engine, organization_id) for _ in range(3))
    with engine.begin() as connection:
        values = {"device_id": coded, "code_hash": b"p" * 32, "created_by": uuid4()}
        connection.execute(sa.insert(device_claims).values(values))
    outcomes = [offer(core, device_id) for device_id in (placed, disabled, uuid4(), coded, first, second)]
    assert outcomes == ["placed", "unknown", "unknown", "coded", "offered", "taken"]
    assert kept(engine, coded).code_hash == b"p" * 32


def test_an_offer_ends_and_its_code_is_free_again(
    engine: sa.Engine, core: psycopg.Connection, organization_id: UUID
) -> None:
    site = site_of(engine, organization_id)
    first, second = a_device(engine, organization_id), a_device(engine, organization_id)
    assert offer(core, first) == "offered"
    with engine.begin() as connection:
        over = sa.update(device_claims).values(expires_at=sa.func.now() - sa.text("interval '1 s'"))
        connection.execute(over.where(device_claims.c.device_id == first))
    assert claimed(engine, CODE, site) is None
    assert offer(core, second) == "offered"
    assert claimed(engine, CODE, site) == second
    assert offer(core, second) == "placed"
