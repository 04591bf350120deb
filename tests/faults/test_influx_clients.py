"""InfluxDB's own client against our endpoint."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS, WriteOptions
from influxdb_client.rest import ApiException

from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.test_device_http import stored
from tests.faults.wire import Credentials

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def client_of(core: Core, token: str, *, is_packed: bool = False) -> InfluxDBClient:
    """A client with a device's token."""
    return InfluxDBClient(
        url=f"http://127.0.0.1:{core.device_http_port}", token=token, org="any", enable_gzip=is_packed, timeout=30_000
    )


def points(count: int) -> list[dict[str, object]]:
    """So many readings, as the client takes them."""
    reading = {"measurement": "meter", "tags": {"phase": "a"}, "time": TIME}
    return [{**reading, "fields": {"power": float(number)}} for number in range(count)]


async def in_thread(work: Callable[[], object]) -> object:
    """The client blocks."""
    return await asyncio.to_thread(work)


async def test_the_client_writes_points_one_by_one_and_in_batches(
    shared_core: Core, database: Database, device: Credentials
) -> None:
    def write() -> None:
        with client_of(shared_core, device.token) as client:
            assert client.ping()
            with client.write_api(write_options=SYNCHRONOUS) as api:
                api.write(bucket="any", record=points(1))
                api.write(bucket="any", record="meter,phase=a power=1 1767225600000000000")
        batches = WriteOptions(batch_size=50, flush_interval=100)
        with (
            client_of(shared_core, device.token, is_packed=True) as client,
            client.write_api(write_options=batches) as api,
        ):
            api.write(bucket="any", record=points(200)[2:])

    await in_thread(write)
    rows = await stored(database, device, 200)
    assert [row[1] for row in rows] == [float(number) for number in range(200)]
    assert {(row[0], str(row[2]), row[3]) for row in rows} == {("meter.power", "{'phase': 'a'}", "http")}


async def test_the_client_hears_that_it_is_not_let_in_and_why_it_is_not_understood(
    shared_core: Core, device: Credentials
) -> None:
    def write(token: str, line: str) -> tuple[int, str]:
        with client_of(shared_core, token) as client, client.write_api(write_options=SYNCHRONOUS) as api:
            try:
                api.write(bucket="any", record=line)
            except ApiException as refused:
                return int(refused.status or 0), str(refused.message)
        return 204, ""

    assert await in_thread(lambda: write("nobody", "a value=1")) == (401, "unknown token, or disabled device")
    status, message = await asyncio.to_thread(write, device.token, "no fields")
    assert (status, message) == (400, "kept as a dead letter: bad_payload")
    assert await in_thread(lambda: write(device.token, "a value=1")) == (204, "")
