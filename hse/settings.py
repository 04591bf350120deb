"""Everything that can be set, read once from `HSE_*` environment variables; all mistakes are reported together.

Secrets (the database's and Redis' URLs) have no default. Limits that the ingest core knows better (what fits with what) are
checked again there.
"""

import base64
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from hse.failure import Failure

PREFIX = "HSE_"
DEFAULT_DATA_DIR = ".hse"
MAIL_DIRECTORY = "mail"
PORT_MAX = 65_535
# What is listened on, by name: the setting is the name and `_port`.
PORTS = ("hdp", "ws", "mqtt", "device_http", "ingest_http", "api", "grpc")
TLS_PORTS = ("hdp_tls", "wss", "mqtt_tls", "device_http_tls")
KIBIBYTE, MEBIBYTE, GIBIBYTE = 1 << 10, 1 << 20, 1 << 30
DATABASE_SCHEMES = ("postgresql", "postgres")
REDIS_SCHEMES = ("redis", "rediss")
MQTT_SCHEMES = ("mqtt", "mqtts")
WEB_SCHEMES = ("https", "http")
SMTP_SCHEMES = ("smtp", "smtps")
SECRET_CHARS_MIN = 32
STORAGE_FORMS = ("auto", "timescaledb", "partitions")
LOG_LEVELS = ("error", "warn", "info", "debug", "trace")
FILES = (
    "tls_certificate_path",
    "tls_key_path",
    "broker_authority_path",
    "broker_client_certificate_path",
    "broker_client_key_path",
    "grpc_tls_certificate_path",
    "grpc_tls_key_path",
    "grpc_client_ca_path",
    "grpc_authority_path",
    "grpc_client_certificate_path",
    "grpc_client_key_path",
)


class SettingsError(Failure):
    """The environment holds mistakes; `mistakes` names each with the variable to change."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def _setting(
    default: Any = None,
    *,
    minimum: int = 0,
    maximum: int = 2**63 - 1,
    choices: tuple[str, ...] = (),
    schemes: tuple[str, ...] = (),
    name: str | None = None,
    is_for_ingest: bool = True,
    is_secret: bool = False,
) -> Any:
    """Declare one setting; a `default` of None says that it may be left out, unless a command requires it.

    What has `schemes` is a URL that may hold a password, and is not shown; nor is what `is_secret`.
    """
    metadata = {
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "schemes": schemes,
        "name": name,
        "is_for_ingest": is_for_ingest,
    }
    return field(default=default, metadata=metadata, repr=not schemes and not is_secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of every process. Sizes are in bytes, spans in the unit that ends their name."""

    data_dir: Path | None = _setting()
    database_url: str | None = _setting(schemes=DATABASE_SCHEMES)
    storage: str = _setting("auto", choices=STORAGE_FORMS, is_for_ingest=False)
    redis_url: str | None = _setting(schemes=REDIS_SCHEMES)

    bind_host: str = _setting("0.0.0.0")  # noqa: S104 (devices come from other machines)
    hdp_port: int = _setting(5000, maximum=PORT_MAX)
    hdp_tls_port: int = _setting(5001, maximum=PORT_MAX)
    ws_port: int = _setting(5002, maximum=PORT_MAX)
    wss_port: int = _setting(5003, maximum=PORT_MAX)
    mqtt_port: int = _setting(1883, maximum=PORT_MAX)
    mqtt_tls_port: int = _setting(8883, maximum=PORT_MAX)
    device_http_port: int = _setting(8086, maximum=PORT_MAX)
    device_http_tls_port: int = _setting(8443, maximum=PORT_MAX)
    broker_url: str | None = _setting(schemes=MQTT_SCHEMES)
    broker_authority_path: Path | None = _setting()
    broker_client_certificate_path: Path | None = _setting()
    broker_client_key_path: Path | None = _setting()
    broker_device_id: str | None = _setting()
    broker_topics: tuple[str, ...] = _setting(())
    broker_group: str = _setting("hse")
    ws_origins: tuple[str, ...] = _setting(())
    ingest_http_port: int = _setting(9464, maximum=PORT_MAX)
    grpc_port: int = _setting(50051, maximum=PORT_MAX)
    grpc_bind_host: str = _setting("127.0.0.1")
    grpc_address: str | None = _setting()
    service_token: str | None = _setting(is_secret=True)
    grpc_tls_certificate_path: Path | None = _setting()
    grpc_tls_key_path: Path | None = _setting()
    grpc_client_ca_path: Path | None = _setting()
    tls_certificate_path: Path | None = _setting()
    tls_key_path: Path | None = _setting()
    node_name: str | None = _setting()

    lanes: int = _setting(1, minimum=1, maximum=64, name="HSE_INGEST_LANES")
    journal_segment_bytes: int = _setting(64 * MEBIBYTE, minimum=64 * KIBIBYTE)
    journal_bytes_max: int = _setting(8 * GIBIBYTE, minimum=MEBIBYTE)
    batch_rows_max: int = _setting(50_000, minimum=1)
    batch_bytes_max: int = _setting(16 * MEBIBYTE, minimum=64 * KIBIBYTE)
    batch_age_ms_max: int = _setting(1000, minimum=1)

    connections_max: int = _setting(50_000, minimum=1)
    connections_per_address_max: int = _setting(20_000, minimum=1)
    frame_bytes_max: int = _setting(MEBIBYTE, minimum=4 * KIBIBYTE)
    inflight_frames_max: int = _setting(64, minimum=1)
    hello_timeout_s: int = _setting(10, minimum=1)
    keepalive_s: int = _setting(60, minimum=1)

    modbus_timeout_ms: int = _setting(1000, minimum=50, maximum=10_000)
    modbus_networks: tuple[str, ...] = _setting(())
    modbus_lease_s: int = _setting(30, minimum=3, maximum=600)

    live_ring_bytes_max: int = _setting(64 * MEBIBYTE, minimum=MEBIBYTE)

    api_port: int = _setting(8080, maximum=PORT_MAX, is_for_ingest=False)
    api_database_url: str | None = _setting(schemes=DATABASE_SCHEMES, is_for_ingest=False)
    api_pool_size: int = _setting(10, minimum=1, maximum=200, is_for_ingest=False)
    # Half of them may be live streams and WebSockets.
    api_connections_max: int = _setting(10_000, minimum=10, is_for_ingest=False)
    secret_key: str | None = _setting(is_for_ingest=False, is_secret=True)
    public_url: str | None = _setting(schemes=WEB_SCHEMES, is_for_ingest=False)
    smtp_url: str | None = _setting(schemes=SMTP_SCHEMES, is_for_ingest=False)
    invitation_days: int = _setting(7, minimum=1, maximum=90, is_for_ingest=False)
    mail_from: str = _setting("hse@localhost", is_for_ingest=False)
    sms_webhook_url: str | None = _setting(schemes=WEB_SCHEMES, is_for_ingest=False)
    sms_webhook_secret: str | None = _setting(is_for_ingest=False, is_secret=True)
    push_webhook_url: str | None = _setting(schemes=WEB_SCHEMES, is_for_ingest=False)
    push_webhook_secret: str | None = _setting(is_for_ingest=False, is_secret=True)
    cors_origins: tuple[str, ...] = _setting((), is_for_ingest=False)
    trusted_proxies: tuple[str, ...] = _setting((), is_for_ingest=False)
    rate_limit_address_per_minute: int = _setting(1200, minimum=1, is_for_ingest=False)
    rate_limit_user_per_minute: int = _setting(1200, minimum=1, is_for_ingest=False)
    rate_limit_key_per_minute_max: int = _setting(6000, minimum=1, maximum=100_000, is_for_ingest=False)
    metrics_token: str | None = _setting(is_for_ingest=False, is_secret=True)

    ingest_nodes: tuple[str, ...] = _setting((), is_for_ingest=False)
    grpc_authority_path: Path | None = _setting(is_for_ingest=False)
    grpc_client_certificate_path: Path | None = _setting(is_for_ingest=False)
    grpc_client_key_path: Path | None = _setting(is_for_ingest=False)
    worker_http_port: int | None = _setting(maximum=PORT_MAX, is_for_ingest=False)

    retention_days: int = _setting(730, minimum=7)
    relevant_event_types: tuple[str, ...] = _setting(("alarm", "state_change", "error", "code_used", "code_rejected"))
    direct_columnstore: bool = _setting(False)
    drain_timeout_s: int = _setting(20, minimum=1)
    log_level: str = _setting("info", choices=LOG_LEVELS)

    def ingest_config_json(self) -> str:
        """Return the configuration of the ingest core; raise `SettingsError` when what it needs is not set."""
        needed = {"data_dir": self.data_dir, "database_url": self.database_url}
        if missing := [f"{variable_of(name)} is not set" for name, value in needed.items() if value is None]:
            raise SettingsError(missing)
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.metadata["is_for_ingest"]}
        return json.dumps({name: value for name, value in values.items() if value is not None}, default=str)


def data_dir_of(settings: Settings) -> Path:
    """Return the absolute data directory; `.hse` below the working directory when none is set."""
    return (settings.data_dir or Path(DEFAULT_DATA_DIR)).resolve()


def mail_dir_of(settings: Settings) -> Path | None:
    """Return where letters become files; None where a mail server sends them."""
    return data_dir_of(settings) / MAIL_DIRECTORY if settings.smtp_url is None else None


def ports_of(settings: Settings) -> dict[str, int]:
    """Return the ports that are listened on, by name."""
    names = PORTS if settings.tls_certificate_path is None else PORTS + TLS_PORTS
    return {name: getattr(settings, f"{name}_port") for name in names}


def port_variable_of(name: str) -> str:
    """Return the environment variable of the port `name`."""
    return variable_of(f"{name}_port")


def variable_of(name: str) -> str:
    """Return the environment variable of the setting `name`."""
    special = {item.name: item.metadata["name"] for item in fields(Settings)}[name]
    return special or PREFIX + name.upper()


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings; an empty variable counts as not set. Raises `SettingsError` with every mistake there is."""
    values: dict[str, Any] = {}
    mistakes: list[str] = []
    known = {variable_of(item.name): item for item in fields(Settings)}
    for variable, item in known.items():
        text = environment.get(variable, "").strip()
        if not text:
            continue
        try:
            values[item.name] = _parse(text, item.type, item.metadata)
        except ValueError as error:
            # The value itself is not repeated: it may hold a password.
            mistakes.append(f"{variable}: {error}")
    mistakes += _misspelt(environment, list(known))
    settings = Settings(**values)
    mistakes += _contradictions(settings)
    if mistakes:
        raise SettingsError(mistakes)
    return settings


def _parse(text: str, kind: Any, limits: Mapping[str, Any]) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise ValueError("must be true or false")
        return text.lower() in ("true", "1")
    if kind is int or kind == int | None:
        return _parse_number(text, limits)
    if kind == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind == Path | None:
        # The children of `hse up` work in a directory of their own.
        return Path(text).absolute()
    if limits["choices"] and text not in limits["choices"]:
        raise ValueError(f"must be one of {', '.join(limits['choices'])}")
    if limits["schemes"] and urlsplit(text).scheme not in limits["schemes"]:
        raise ValueError(f"must be a URL that begins with {limits['schemes'][0]}://")
    return text


def _parse_number(text: str, limits: Mapping[str, Any]) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError("must be a whole number") from None
    if not limits["minimum"] <= number <= limits["maximum"]:
        raise ValueError(f"must be between {limits['minimum']} and {limits['maximum']}, is {number}")
    return number


def _misspelt(environment: Mapping[str, str], known: list[str]) -> list[str]:
    """Name variables that are nearly ours: a setting that is silently not read is worse than one that is refused."""
    found = []
    for variable in environment:
        if variable.startswith(PREFIX) and variable not in known:
            near = difflib.get_close_matches(variable, known, n=1, cutoff=0.85)
            if near:
                found.append(f"{variable}: unknown; is {near[0]} meant?")
    return found


def _contradictions(settings: Settings) -> list[str]:
    found = []
    for certificate, key in (
        ("tls_certificate_path", "tls_key_path"),
        ("broker_client_certificate_path", "broker_client_key_path"),
        ("grpc_tls_certificate_path", "grpc_tls_key_path"),
        ("grpc_client_certificate_path", "grpc_client_key_path"),
    ):
        if (getattr(settings, certificate) is None) != (getattr(settings, key) is None):
            found.append(f"{variable_of(certificate)} and {variable_of(key)}: set both or neither")
    if settings.grpc_client_ca_path is not None and settings.grpc_tls_certificate_path is None:
        found.append("HSE_GRPC_CLIENT_CA_PATH: needs HSE_GRPC_TLS_CERTIFICATE_PATH and HSE_GRPC_TLS_KEY_PATH")
    if settings.grpc_client_certificate_path is not None and settings.grpc_authority_path is None:
        found.append(
            "HSE_GRPC_AUTHORITY_PATH: a certificate is shown over TLS only: say who signs the nodes' certificates"
        )
    for name in FILES:
        path: Path | None = getattr(settings, name)
        if path is not None and not path.is_file():
            found.append(f"{variable_of(name)}: there is no file {path}")
    for name in ("secret_key", "service_token"):
        secret: str | None = getattr(settings, name)
        if secret is not None and len(secret) < SECRET_CHARS_MIN:
            found.append(
                f"{variable_of(name)}: must have at least {SECRET_CHARS_MIN} characters, such as `openssl rand -hex 32`"
            )
    for channel in ("sms", "push"):
        found += _webhook_mistakes(settings, f"{channel}_webhook_url", f"{channel}_webhook_secret")
    for name in ("cors_origins", "ws_origins"):
        wrong = [origin for origin in getattr(settings, name) if not _is_origin(origin)]
        found += [
            f"{variable_of(name)}: {origin!r} is no origin, such as https://console.example.com" for origin in wrong
        ]
    found += [
        f"HSE_MODBUS_NETWORKS: {network!r} is no network, such as 10.20.0.0/16 or <organization id>=10.20.0.0/16"
        for network in settings.modbus_networks
        if not _is_network(network)
    ]
    return found + _ports_used_twice(settings)


def _webhook_mistakes(settings: Settings, url_name: str, secret_name: str) -> list[str]:
    """Codes go there, so only over TLS or to this machine; what signs them is a key as the Standard Webhooks have it."""
    url, secret = getattr(settings, url_name), getattr(settings, secret_name)
    if (url is None) != (secret is None):
        return [f"{variable_of(url_name)} and {variable_of(secret_name)}: set both or neither"]
    if url is None:
        return []
    found, parts = [], urlsplit(url)
    if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
        found.append(f"{variable_of(url_name)}: must begin with https://, as it is not on this machine")
    if not parts.hostname or parts.username is not None or parts.fragment:
        found.append(f"{variable_of(url_name)}: must name a host, and neither a user nor a fragment")
    if not _is_webhook_secret(secret):
        found.append(
            f"{variable_of(secret_name)}: must be whsec_ and base64 of 24 to 64 bytes, as `echo whsec_$(openssl rand -base64 32)`"
        )
    return found


def _is_webhook_secret(text: str) -> bool:
    try:
        return 24 <= len(base64.b64decode(text.removeprefix("whsec_"), validate=True)) <= 64 and text[:6] == "whsec_"
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_network(text: str) -> bool:
    organization, equals, network = text.rpartition("=")
    try:
        ip_network(network)
        if equals:
            UUID(organization)
    except ValueError:
        return False
    return "/" in network


def _ports_used_twice(settings: Settings) -> list[str]:
    ports = {port_variable_of(name): port for name, port in ports_of(settings).items()}
    taken = [port for port in ports.values() if port != 0]
    if len(taken) != len(set(taken)):
        return [f"{', '.join(ports)}: must differ"]
    return []


def _is_origin(text: str) -> bool:
    parts = urlsplit(text)
    is_whole = bool(parts.netloc) and text == f"{parts.scheme}://{parts.netloc}"
    return parts.scheme in WEB_SCHEMES and is_whole and "*" not in text
