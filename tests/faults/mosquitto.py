"""The commands of Mosquitto, `mosquitto_pub` and `mosquitto_sub`, as a device would run them."""

import asyncio
import shutil
from dataclasses import dataclass

import pytest

from tests.faults.core import Core
from tests.faults.wire import Credentials

with_mosquitto = pytest.mark.skipif(
    shutil.which("mosquitto_pub") is None, reason="mosquitto_pub is missing: apt-get install mosquitto-clients"
)
SECONDS_MAX = 30
NAMES = {"3.1.1": "mqttv311", "5": "mqttv5"}


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a command, and what it said on both streams."""

    returncode: int
    said: bytes


async def mosquitto(
    command: str,
    core: Core,
    device: Credentials,
    version: str,
    *options: str,
    lines: bytes | None = None,
    port: int | None = None,
) -> Done:
    """Run `mosquitto_pub` or `mosquitto_sub` with QoS 1 to its end, which comes within half a minute."""
    login = ("-u", str(device.device_id), "-P", device.token, "-q", "1", "-V", NAMES[version])
    process = await asyncio.create_subprocess_exec(
        *(f"mosquitto_{command}", "-h", "127.0.0.1", "-p", str(port or core.mqtt_port), *login, *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SECONDS_MAX):
            said, _ = await process.communicate(lines)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Done(process.returncode, said)
