"""The registry as the operator's commands work on it: by organisation names, many devices a statement, no actor and no audit log.

The ingest core hears of every change through the table's triggers.
"""

import secrets
from uuid import UUID, uuid4

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, insert

from hse.adapters.postgres.tables import devices, organizations
from hse.domain.devices.model import (
    TOKEN_ENTROPY_BYTES,
    DeviceToken,
    IssuedDevice,
    RegisteredDevice,
    UnknownDevice,
    UnusableGateway,
    checked_name,
    numbered_names,
    token_from_entropy,
)


def ensure_organization(connection: sa.Connection, name: str) -> UUID:
    """The id of the organisation called `name`, which is made when it is missing. Raises `InvalidDeviceName`."""
    connection.execute(
        insert(organizations)
        .values(name=checked_name(name))
        .on_conflict_do_nothing(index_elements=["partner_company_id", "name"])
    )
    organization_id: UUID = connection.execute(
        sa.select(organizations.c.id).where(organizations.c.name == name)
    ).scalar_one()
    return organization_id


def add_devices(
    connection: sa.Connection,
    *,
    organization: str,
    name: str,
    count: int = 1,
    gateway_id: UUID | None = None,
    device_type: str = "sensor",
) -> list[IssuedDevice]:
    """Adds `count` devices in one statement, so that the core hears of them once.

    With `gateway_id` they are children: that gateway speaks for them, so they get no token of their own.
    Raises `InvalidDeviceName`, `InvalidDeviceCount`, `UnusableGateway`.
    """
    organization_id = ensure_organization(connection, organization)
    issued: list[IssuedDevice] = []
    hashes: list[bytes | None] = []
    for device_name in numbered_names(name, count):
        token = None if gateway_id is not None else _new_token()
        issued.append(IssuedDevice(device_id=uuid4(), name=device_name, token=token.text if token else None))
        hashes.append(token.sha256 if token else None)
    rows = (
        sa.func.unnest(
            sa.literal([device.device_id for device in issued], ARRAY(sa.Uuid)),
            sa.literal([device.name for device in issued], ARRAY(sa.Text)),
            sa.literal(hashes, ARRAY(BYTEA)),
        )
        .table_valued(sa.column("id", sa.Uuid), sa.column("name", sa.Text), sa.column("token_hash", BYTEA))
        .render_derived()
    )
    statement = sa.insert(devices).from_select(
        ["id", "organization_id", "gateway_id", "name", "token_hash", "device_type"],
        sa.select(
            rows.c.id,
            sa.literal(organization_id, sa.Uuid),
            sa.literal(gateway_id, sa.Uuid),
            rows.c.name,
            rows.c.token_hash,
            sa.literal(device_type),
        ),
        include_defaults=False,
    )
    try:
        connection.execute(statement)
    except sa.exc.IntegrityError as error:
        if gateway_id is not None and _constraint_name(error) == "devices_gateway_is_top_level":
            raise UnusableGateway(gateway_id) from error
        raise
    return issued


def list_devices(
    connection: sa.Connection, *, organization: str | None = None, limit: int = 1000
) -> list[RegisteredDevice]:
    """The devices by organisation and name, at most `limit` of them."""
    statement = (
        sa.select(
            devices.c.id,
            devices.c.name,
            organizations.c.name.label("organization"),
            devices.c.gateway_id,
            devices.c.token_hash.is_not(None).label("has_token"),
            devices.c.is_enabled,
            devices.c.created_at,
        )
        .join(organizations)
        .order_by(organizations.c.name, devices.c.name, devices.c.id)
        .limit(limit)
    )
    if organization is not None:
        statement = statement.where(organizations.c.name == organization)
    return [
        RegisteredDevice(
            device_id=row.id,
            name=row.name,
            organization=row.organization,
            gateway_id=row.gateway_id,
            has_token=row.has_token,
            is_enabled=row.is_enabled,
            created_at=row.created_at,
        )
        for row in connection.execute(statement)
    ]


def set_enabled(connection: sa.Connection, device_id: UUID, *, is_enabled: bool) -> None:
    """Lets a device connect or forbids it; the core closes what is open. Raises `UnknownDevice`."""
    result = connection.execute(sa.update(devices).where(devices.c.id == device_id).values(is_enabled=is_enabled))
    if result.rowcount == 0:
        raise UnknownDevice(device_id)


def rotate_token(connection: sa.Connection, device_id: UUID) -> IssuedDevice:
    """Gives a device a new token; the old one is worth nothing from the commit on. Raises `UnknownDevice`."""
    token = _new_token()
    name = connection.execute(
        sa.update(devices).where(devices.c.id == device_id).values(token_hash=token.sha256).returning(devices.c.name)
    ).scalar_one_or_none()
    if name is None:
        raise UnknownDevice(device_id)
    return IssuedDevice(device_id=device_id, name=name, token=token.text)


def _new_token() -> DeviceToken:
    return token_from_entropy(secrets.token_bytes(TOKEN_ENTROPY_BYTES))


def _constraint_name(error: sa.exc.IntegrityError) -> str | None:
    return error.orig.diag.constraint_name if isinstance(error.orig, psycopg.Error) else None
