"""Where a polled device may be said to answer."""

from typing import Any

import pytest

from hse.domain.devices.modbus import checked_address
from hse.domain.errors import Invalid


@pytest.mark.parametrize(
    ("host", "kept"),
    [
        ("10.0.4.7", "10.0.4.7"),
        ("192.168.1.20", "192.168.1.20"),
        ("2001:DB8::0:7", "2001:db8::7"),
        ("::ffff:10.0.4.7", "10.0.4.7"),
        ("Meter-7.Plant.example.", "meter-7.plant.example"),
        ("rtu", "rtu"),
    ],
)
def test_a_host_is_kept_in_its_canonical_form(host: str, kept: str) -> None:
    whole = {"host": kept, "port": 502, "unit_id": 1, "framing": "tcp"}
    assert checked_address({"host": host}) == checked_address(whole) == whole


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "localhost", "x.localhost", "LOCALHOST."),
        *(
            "0.0.0.0",  # noqa: S104
            "::",
            "169.254.169.254",
            "fe80::1",
            "fe80::1%eth0",
            "224.0.0.1",
            "255.255.255.255",
        ),
        *(
            "127.1",
            "0x7f.1",
            "2130706433",
            "a.0x7f",
            "",
            "a b",
            "a_b",
            "-a",
            "a..b",
            "http://a",
            "a/b",
            "a:502",
            "x" * 254,
        ),
    ],
)
def test_a_host_that_is_no_device_is_refused(host: str) -> None:
    with pytest.raises(Invalid) as refused:
        checked_address({"host": host})
    assert refused.value.field == "modbus.host"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"port": 0}, "port"),
        ({"port": 65_536}, "port"),
        ({"port": "502"}, "port"),
        ({"unit_id": 256}, "unit_id"),
        ({"unit_id": 0, "framing": "rtu_over_tcp"}, "unit_id"),
        ({"unit": 7}, "unit"),
        ({"framing": "rtu"}, "framing"),
        ({"host": None}, "host"),
    ],
)
def test_an_address_that_cannot_be_is_refused(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        checked_address({"host": "10.0.4.7", **wrong})
    assert refused.value.field == f"modbus.{field}"
