"""Settings and a data directory become a machine, or the place that a command works on."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from hse.adapters.postgres.engine import transaction
from hse.adapters.postgres.migrate import EventStorage, upgrade
from hse.adapters.postgres.registry import add_devices, list_devices, rotate_token
from hse.domain.booking.door_code_views import LOCK_TYPE
from hse.embedded.account import EmbeddedServerError, server_account
from hse.embedded.ports import free_ports, is_free
from hse.embedded.postgres import has_cluster, prepare_postgres
from hse.embedded.secrets import password
from hse.embedded.valkey import prepare_valkey
from hse.settings import (
    FILES,
    Settings,
    SettingsError,
    data_dir_of,
    mail_dir_of,
    port_variable_of,
    ports_of,
    variable_of,
)
from hse.simulation.identities import Identity, load_identities, save_identities
from hse.simulation.meters import SamplesMissing, meters, samples_directory
from hse.supervision.machine import Machine
from hse.supervision.published import find_published

DEMO_ORGANIZATION = "Demo"
DEVICES_MAX = 1_000_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What the command line of `hse up` says."""

    is_auto_ports: bool
    has_demo: bool
    replay_speed: float
    screenshot: tuple[Path, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a command finds a running machine."""

    database_url: str
    hdp_port: int


def find_place(settings: Settings) -> Place:
    """Return the database of HSE_DATABASE_URL, else that of the `hse up` on the data directory; raises `NotRunning`."""
    if settings.database_url is not None:
        return Place(database_url=settings.database_url, hdp_port=settings.hdp_port)
    published = find_published(data_dir_of(settings))
    return Place(database_url=published.database_url, hdp_port=published.ports["hdp"])


def migrate(settings: Settings, database_url: str) -> None:
    """Bring the database to the newest schema."""
    upgrade(database_url, storage=cast("EventStorage", settings.storage))


def compose_machine(settings: Settings, options: UpOptions, environment: Mapping[str, str]) -> Machine:
    """Prepare the embedded servers and put the machine together. The caller holds the data directory's lock."""
    data_dir = data_dir_of(settings)
    ports = _device_ports(settings, is_auto=options.is_auto_ports)
    postgres_port, valkey_port = free_ports(2)
    # Before the cluster is made: where there is one, there was a key.
    secret_key = settings.secret_key or _secret_key(data_dir, is_embedded=settings.database_url is None)
    postgres = prepare_postgres(data_dir, port=postgres_port) if settings.database_url is None else None
    valkey = prepare_valkey(data_dir, port=valkey_port) if settings.redis_url is None else None
    database_url = settings.database_url or (postgres.url() if postgres else "")
    redis_url = settings.redis_url or (valkey.url() if valkey else "")
    if postgres is not None:
        ports["postgres"] = postgres_port
    if valkey is not None:
        ports["redis"] = valkey_port
    api_url = settings.api_database_url or (postgres.api_url() if postgres else database_url)
    service_token = settings.service_token or password(data_dir / "secrets", "service-token", server_account())
    demo = _demo(options)

    def prepare_database() -> None:
        migrate(settings, database_url)
        if postgres is not None and settings.api_database_url is None:
            postgres.ensure_api_login()
        if demo is not None:
            enroll_meters(database_url, data_dir / "simulation" / "meters.json")

    given = {port_variable_of(name): str(ports[name]) for name in ports_of(settings)}
    given |= {variable_of(name): str(path) for name in FILES if (path := getattr(settings, name)) is not None}
    given |= {"HSE_DATA_DIR": str(data_dir), "HSE_DATABASE_URL": database_url, "HSE_REDIS_URL": redis_url}
    given |= {"HSE_API_DATABASE_URL": api_url, "HSE_SECRET_KEY": secret_key, "HSE_SERVICE_TOKEN": service_token}
    return Machine(
        data_dir=data_dir,
        settings=replace(settings, data_dir=data_dir, database_url=database_url, redis_url=redis_url),
        environment={**environment, **given},
        ports=ports,
        postgres=postgres,
        valkey=valkey,
        database_url=database_url,
        redis_url=redis_url,
        prepare_database=prepare_database,
        simulate=demo,
        mail_dir=mail_dir_of(settings),
        screenshot=options.screenshot,
    )


def _secret_key(data_dir: Path, *, is_embedded: bool) -> str:
    """The key of this data directory, made with it. A new one beside an old database would read nothing that was sealed there."""
    path = data_dir / "secrets" / "key"
    if is_embedded and has_cluster(data_dir) and not path.exists():
        raise EmbeddedServerError(
            f"{path} is missing, and nothing else opens the door codes and second factors in the database of {data_dir}:"
            " restore the file from a backup of the data directory, or set HSE_SECRET_KEY to what it held. Where it is lost"
            f" for good, `(umask 077; openssl rand -hex 32 > {path})` makes another one, and those are lost, too"
        )
    return password(path.parent, path.name, server_account())


def _device_ports(settings: Settings, *, is_auto: bool) -> dict[str, int]:
    ports = ports_of(settings)
    if is_auto:
        return dict(zip(ports, free_ports(len(ports)), strict=True))
    taken = [
        f"port {port} is taken: set {port_variable_of(name)}, or run with `--ports auto`"
        for name, port in ports.items()
        if not is_free(port, settings.bind_host)
    ]
    if taken:
        raise SettingsError(taken)
    return ports


def _demo(options: UpOptions) -> list[str] | None:
    if not options.has_demo:
        return None
    try:
        samples_directory()
    except SamplesMissing as error:
        logger.warning("no demo: %s", error)
        return None
    return ["simulate", "--replay", "meters", "--speed", str(options.replay_speed)]


def enroll_meters(database_url: str, path: Path) -> None:
    """See to it that every recorded meter is a device of the demo organisation, and that its token is in the file."""
    enroll(database_url, path, [meter.name for meter in meters()])


def enroll_fleet(database_url: str, path: Path, count: int) -> None:
    """See to it that `count` synthetic devices are registered, and that their tokens are in the file."""
    names = [f"simulated-{number:06}" for number in range(1, count + 1)]
    enroll(database_url, path, names)


def enroll_locks(database_url: str, path: Path, count: int) -> None:
    """See to it that `count` locks are registered, and that their tokens are in the file."""
    enroll(database_url, path, [f"lock-{number:04}" for number in range(1, count + 1)], device_type=LOCK_TYPE)


def enroll(database_url: str, path: Path, names: list[str], *, device_type: str = "sensor") -> None:
    """Register devices by name where they are not, and keep their tokens in the file at `path`.

    The database keeps only the tokens' hashes. When either side was lost, the device gets a new token.
    """
    kept = {identity.name: identity for identity in load_identities(path)}
    identities = []
    with transaction(database_url) as connection:
        present = list_devices(connection, organization=DEMO_ORGANIZATION, limit=DEVICES_MAX)
        registered = {device.name: device.device_id for device in present}
        for name in names:
            identity = kept.get(name)
            if identity is not None and registered.get(name) == identity.device_id:
                identities.append(identity)
                continue
            if name in registered:
                issued = rotate_token(connection, registered[name])
            else:
                (issued,) = add_devices(connection, organization=DEMO_ORGANIZATION, name=name, device_type=device_type)
            identities.append(Identity(device_id=issued.device_id, token=str(issued.token), name=name))
    # After the commit: ids that are in the file are in the database. A death in between costs new tokens at the next start.
    known = {identity.name for identity in identities}
    save_identities(path, identities + [identity for name, identity in kept.items() if name not in known])
