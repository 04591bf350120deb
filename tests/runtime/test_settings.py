"""Settings: every mistake at once, no secret shown, and the core's configuration as the core takes it."""

import json
from pathlib import Path

import pytest

from hse.settings import SettingsError, ports_of, read_settings

ENOUGH = {"HSE_DATA_DIR": "/var/lib/hse", "HSE_DATABASE_URL": "postgresql://hse:pw@localhost/hse"}


def test_all_mistakes_are_reported_together(tmp_path: Path) -> None:
    environment = {
        "HSE_DATABASE_URL": "mysql://somebody:s3cret@localhost/hse",
        "HSE_HDP_PORT": "many",
        "HSE_INGEST_HTTP_PORT": "70000",
        "HSE_DIRECT_COLUMNSTORE": "perhaps",
        "HSE_LOG_LEVEL": "loud",
        "HSE_TLS_KEY_PATH": str(tmp_path / "none.pem"),
        "HSE_DATABASEURL": "x",
    }
    with pytest.raises(SettingsError) as caught:
        read_settings(environment)
    assert {mistake.split(":")[0].split(" ")[0] for mistake in caught.value.mistakes} == {
        "HSE_DATABASE_URL",
        "HSE_HDP_PORT",
        "HSE_INGEST_HTTP_PORT",
        "HSE_DIRECT_COLUMNSTORE",
        "HSE_LOG_LEVEL",
        "HSE_TLS_KEY_PATH",
        "HSE_TLS_CERTIFICATE_PATH",
        "HSE_DATABASEURL",
    }
    assert "s3cret" not in str(caught.value)


def test_secrets_have_no_default_and_are_not_shown() -> None:
    settings = read_settings({})
    assert settings.database_url is None
    assert settings.redis_url is None
    assert "pw@" not in repr(read_settings(ENOUGH))


def test_the_ingest_configuration_names_what_is_missing() -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({}).ingest_config_json()
    assert caught.value.mistakes == ["HSE_DATA_DIR is not set", "HSE_DATABASE_URL is not set"]


def test_the_ingest_configuration_holds_the_cores_names_only() -> None:
    environment = ENOUGH | {
        "HSE_REDIS_URL": "redis://localhost/0",
        "HSE_INGEST_LANES": "2",
        "HSE_RELEVANT_EVENT_TYPES": "alarm, error",
        "HSE_DIRECT_COLUMNSTORE": "true",
    }
    config = json.loads(read_settings(environment).ingest_config_json())
    assert config["data_dir"] == "/var/lib/hse"
    assert config["lanes"] == 2
    assert config["relevant_event_types"] == ["alarm", "error"]
    assert config["direct_columnstore"] is True
    assert config["redis_url"] == "redis://localhost/0"
    assert "api_port" not in config
    assert "tls_key_path" not in config


def test_nobody_is_polled_but_in_networks_that_are_named() -> None:
    assert json.loads(read_settings(ENOUGH).ingest_config_json())["modbus_networks"] == []
    networks = ["10.20.0.0/16", "6c6ab11b-6c2f-4d2c-bd8f-1f0d5a4e8f10=fd00:20::/32"]
    named = read_settings(ENOUGH | {"HSE_MODBUS_NETWORKS": ", ".join(networks)})
    assert json.loads(named.ingest_config_json())["modbus_networks"] == networks
    with pytest.raises(SettingsError) as caught:
        read_settings(
            {
                "HSE_MODBUS_NETWORKS": "10.20.0.0/16, 10.20.0.1/16, 10.0.0.1, meters, 10.0.0.0/33, acme=10.0.0.0/8, =10.0.0.0/8"
            }
        )
    assert len(caught.value.mistakes) == 6


def test_what_secures_the_port_of_the_control_plane_is_checked_and_not_shown(tmp_path: Path) -> None:
    token = "0123456789abcdef0123456789abcdef"
    settings = read_settings(ENOUGH | {"HSE_SERVICE_TOKEN": token})
    assert token not in repr(settings)
    config = json.loads(settings.ingest_config_json())
    assert (config["service_token"], config["grpc_port"], config["grpc_bind_host"]) == (token, 50051, "127.0.0.1")
    certificate = tmp_path / "certificate.pem"
    certificate.touch()
    wrong = {
        "HSE_SERVICE_TOKEN": token[:-1],
        "HSE_GRPC_CLIENT_CA_PATH": str(certificate),
        "HSE_GRPC_TLS_KEY_PATH": str(certificate),
        "HSE_GRPC_PORT": "5000",
    }
    with pytest.raises(SettingsError) as caught:
        read_settings(wrong)
    assert token[:-1] not in str(caught.value)
    expected = ["at least 32 characters", "GRPC_CLIENT_CA_PATH: needs", "set both or neither", "must differ"]
    for part in expected:
        assert any(part in mistake for mistake in caught.value.mistakes), part
    assert len(caught.value.mistakes) == len(expected)


def test_ports_for_tls_are_ports_where_it_is_served(tmp_path: Path) -> None:
    environment = ENOUGH | {"HSE_WSS_PORT": "5000"}
    plain = ports_of(read_settings(environment))
    assert (plain["hdp"], "wss" in plain) == (5000, False)
    for name in ("CERTIFICATE", "KEY"):
        (tmp_path / name).touch()
        environment[f"HSE_TLS_{name}_PATH"] = str(tmp_path / name)
    with pytest.raises(SettingsError, match=r"HSE_WSS_PORT.*must differ"):
        read_settings(environment)
    assert ports_of(read_settings(environment | {"HSE_WSS_PORT": "5003"}))["wss"] == 5003


def test_an_empty_variable_counts_as_not_set() -> None:
    assert read_settings({"HSE_HDP_PORT": ""}).hdp_port == 5000


def test_a_short_service_token_and_half_a_certificate_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("x", encoding="utf-8")
    environment = ENOUGH | {
        "HSE_SERVICE_TOKEN": "s3cret",
        "HSE_GRPC_CLIENT_CERTIFICATE_PATH": str(tmp_path / "a.pem"),
        "HSE_WORKER_HTTP_PORT": "70000",
    }
    with pytest.raises(SettingsError) as caught:
        read_settings(environment)
    assert sorted(mistake.split(":")[0].split(" ")[0] for mistake in caught.value.mistakes) == [
        "HSE_GRPC_AUTHORITY_PATH",
        "HSE_GRPC_CLIENT_CERTIFICATE_PATH",
        "HSE_SERVICE_TOKEN",
        "HSE_WORKER_HTTP_PORT",
    ]
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(read_settings(ENOUGH | {"HSE_SERVICE_TOKEN": "s3cret" * 6}))


SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.mark.parametrize(
    ("url", "secret", "mistakes"),
    [
        ("https://sms.example.com/hse?tenant=1", SECRET, 0),
        ("http://127.0.0.1:9000/", SECRET, 0),
        ("http://[::1]:9000/", SECRET, 0),
        ("http://localhost:9000/", SECRET, 0),
        ("http://sms.example.com/", SECRET, 1),
        ("http://169.254.169.254/latest/meta-data", SECRET, 1),
        ("http://127.0.0.1.example.com/", SECRET, 1),
        ("https://user:pw@sms.example.com/", SECRET, 1),
        ("https:///sms", SECRET, 1),
        ("ftp://sms.example.com/", SECRET, 2),
        ("https://sms.example.com/", "", 1),
        ("", SECRET, 1),
        ("https://sms.example.com/", "whsec_c2hvcnQ=", 1),
        ("https://sms.example.com/", SECRET.removeprefix("whsec_"), 1),
        ("https://sms.example.com/", "whsec_" + "*" * 40, 1),
    ],
)
def test_webhooks_go_over_tls_or_to_this_machine_and_are_signed(url: str, secret: str, mistakes: int) -> None:
    environment = {"HSE_SMS_WEBHOOK_URL": url, "HSE_SMS_WEBHOOK_SECRET": secret}
    if mistakes == 0:
        shown = repr(read_settings(environment))
        assert "whsec_" not in shown
        assert "example" not in shown
        return
    with pytest.raises(SettingsError) as caught:
        read_settings(environment)
    assert len(caught.value.mistakes) == mistakes
    assert all(mistake.startswith("HSE_SMS_WEBHOOK_") for mistake in caught.value.mistakes)
    assert SECRET not in str(caught.value)
