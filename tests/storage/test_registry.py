"""The device registry: tokens, gateways and their children, and the messages that tell the core of changes."""

import hashlib
from collections.abc import Iterator
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa

from hse.adapters.postgres.registry import add_devices, ensure_organization, list_devices, rotate_token, set_enabled
from hse.domain.devices.model import (
    InvalidDeviceCount,
    InvalidDeviceName,
    UnknownDevice,
    UnusableGateway,
    numbered_names,
    token_from_entropy,
)


@pytest.fixture
def connection(plain_engine: sa.Engine) -> Iterator[sa.Connection]:
    with plain_engine.connect() as connection:
        yield connection


def token_hash(connection: sa.Connection, device_id: UUID) -> bytes | None:
    found: bytes | None = connection.execute(
        sa.text("select token_hash from devices where id = :id"), {"id": device_id}
    ).scalar_one()
    return found


def test_a_token_has_256_bits_and_only_its_hash_is_kept(connection: sa.Connection) -> None:
    issued = add_devices(connection, organization="Demo", name="meter", count=3)
    assert [device.name for device in issued] == ["meter-1", "meter-2", "meter-3"]
    assert len({device.token for device in issued}) == 3
    for device in issued:
        assert device.token is not None
        assert len(device.token) == 43
        assert token_hash(connection, device.device_id) == hashlib.sha256(device.token.encode()).digest()
        assert device.token not in repr(device)


def test_a_token_is_made_of_exactly_32_bytes() -> None:
    assert token_from_entropy(bytes(32)).text == "A" * 43
    with pytest.raises(ValueError, match="32 random bytes"):
        token_from_entropy(bytes(31))


def test_numbered_names_sort_by_their_number() -> None:
    names = numbered_names("door", 100)
    assert names == sorted(names)
    assert names[6] == "door-007"
    assert numbered_names("door", 1) == ["door"]


@pytest.mark.parametrize("count", [0, -1, 100_001])
def test_a_senseless_count_is_refused(count: int) -> None:
    with pytest.raises(InvalidDeviceCount):
        numbered_names("door", count)


@pytest.mark.parametrize(("name", "count"), [("", 1), ("x" * 201, 1), ("x" * 199, 2), ("a\0b", 1)])
def test_a_name_that_cannot_be_stored_is_refused(name: str, count: int) -> None:
    with pytest.raises(InvalidDeviceName):
        numbered_names(name, count)


def test_an_organisation_is_made_once(connection: sa.Connection) -> None:
    assert ensure_organization(connection, "Demo") == ensure_organization(connection, "Demo")


def test_devices_are_listed_by_organisation_and_name(connection: sa.Connection) -> None:
    add_devices(connection, organization="B", name="lock")
    add_devices(connection, organization="A", name="meter", count=2)
    assert [(device.organization, device.name) for device in list_devices(connection)] == [
        ("A", "meter-1"),
        ("A", "meter-2"),
        ("B", "lock"),
    ]
    assert [device.name for device in list_devices(connection, organization="B")] == ["lock"]
    assert len(list_devices(connection, limit=1)) == 1


def test_a_device_can_be_disabled_and_given_a_new_token(connection: sa.Connection) -> None:
    [issued] = add_devices(connection, organization="Demo", name="lock")
    set_enabled(connection, issued.device_id, is_enabled=False)
    assert [device.is_enabled for device in list_devices(connection)] == [False]
    rotated = rotate_token(connection, issued.device_id)
    assert rotated.token is not None
    assert rotated.token != issued.token
    assert token_hash(connection, issued.device_id) == hashlib.sha256(rotated.token.encode()).digest()


def test_an_unknown_device_is_named_as_such(connection: sa.Connection) -> None:
    with pytest.raises(UnknownDevice):
        set_enabled(connection, uuid4(), is_enabled=True)
    with pytest.raises(UnknownDevice):
        rotate_token(connection, uuid4())


def test_a_child_has_no_token_of_its_own(connection: sa.Connection) -> None:
    [gateway] = add_devices(connection, organization="Demo", name="gateway")
    [child] = add_devices(connection, organization="Demo", name="sensor", gateway_id=gateway.device_id)
    assert child.token is None
    assert token_hash(connection, child.device_id) is None
    assert [device.gateway_id for device in list_devices(connection)] == [None, gateway.device_id]


def test_a_gateway_of_another_organisation_is_refused(connection: sa.Connection) -> None:
    [gateway] = add_devices(connection, organization="Other", name="gateway")
    with pytest.raises(UnusableGateway):
        add_devices(connection, organization="Demo", name="sensor", gateway_id=gateway.device_id)


def test_a_child_cannot_be_a_gateway(connection: sa.Connection) -> None:
    [gateway] = add_devices(connection, organization="Demo", name="gateway")
    [child] = add_devices(connection, organization="Demo", name="sensor", gateway_id=gateway.device_id)
    with pytest.raises(UnusableGateway):
        add_devices(connection, organization="Demo", name="sensor", gateway_id=child.device_id)


@pytest.mark.parametrize("becomes_child_of", ["itself", "another gateway"])
def test_a_gateway_with_children_cannot_become_a_child(connection: sa.Connection, becomes_child_of: str) -> None:
    gateway, other = add_devices(connection, organization="Demo", name="gateway", count=2)
    add_devices(connection, organization="Demo", name="sensor", gateway_id=gateway.device_id)
    parent = gateway if becomes_child_of == "itself" else other
    with pytest.raises(sa.exc.IntegrityError, match="devices_gateway_is_top_level"):
        connection.execute(
            sa.text("update devices set gateway_id = :parent where id = :id"),
            {"parent": parent.device_id, "id": gateway.device_id},
        )


def test_a_childless_device_cannot_be_its_own_gateway(connection: sa.Connection) -> None:
    [device] = add_devices(connection, organization="Demo", name="gateway")
    with pytest.raises(sa.exc.IntegrityError, match="devices_gateway_is_top_level"):
        connection.execute(sa.text("update devices set gateway_id = id where id = :id"), {"id": device.device_id})


def test_changes_move_updated_at(plain_engine: sa.Engine) -> None:
    with plain_engine.begin() as connection:
        [device] = add_devices(connection, organization="Demo", name="lock")
    with plain_engine.begin() as connection:
        set_enabled(connection, device.device_id, is_enabled=False)
        assert connection.execute(sa.text("select updated_at > created_at from devices")).scalar_one() is True


class Listener:
    """Hears `hse_devices`; `said_of` runs a statement in a transaction of its own and returns what was said of it."""

    def __init__(self, engine: sa.Engine, heard: psycopg.Connection) -> None:
        self.engine = engine
        self.heard = heard

    def said_of(self, statement: str, **parameters: object) -> list[str]:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), parameters)
            connection.execute(sa.text("select pg_notify('hse_devices', 'end')"))
        said: list[str] = []
        for notification in self.heard.notifies(timeout=20):
            if notification.payload == "end":
                return said
            said.append(notification.payload)
        pytest.fail("the listener heard nothing for 20 s")


@pytest.fixture
def listener(plain_engine: sa.Engine) -> Iterator[Listener]:
    url = plain_engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as heard:
        heard.execute("listen hse_devices")
        with plain_engine.begin() as connection:
            ensure_organization(connection, "Demo")
        yield Listener(plain_engine, heard)


ADD_DEVICES = (
    "insert into devices (organization_id, name) select id, n::text from organizations, generate_series(1, :count) n"
)


def test_few_changes_are_told_by_their_ids(plain_engine: sa.Engine, listener: Listener) -> None:
    [inserted] = listener.said_of(ADD_DEVICES, count=100)
    with plain_engine.connect() as connection:
        ids = set(connection.execute(sa.text("select id::text from devices")).scalars())
    assert set(inserted.split(",")) == ids
    one = min(ids)
    assert listener.said_of("update devices set is_enabled = false where id = :id", id=one) == [one]
    assert listener.said_of("delete from devices where id = :id", id=one) == [one]


def test_many_changes_are_told_as_a_reload(listener: Listener) -> None:
    assert listener.said_of(ADD_DEVICES, count=101) == ["reload"]
    assert listener.said_of("update devices set is_enabled = false") == ["reload"]
    assert listener.said_of("delete from devices") == ["reload"]
    assert listener.said_of("truncate devices cascade") == ["reload"]


def test_a_statement_without_effect_tells_nothing(listener: Listener) -> None:
    assert listener.said_of("update devices set is_enabled = false") == []
