"""A device that speaks HTTP, through `requests`, off the event loop."""

import asyncio
from typing import Any

import requests

from tests.faults.wire import Credentials

SECONDS = 30.0


class HttpDevice:
    """One device's requests."""

    def __init__(self, port: int, token: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.token = token
        self._session = requests.Session()

    @classmethod
    def of(cls, port: int, device: Credentials) -> "HttpDevice":
        """The device with these credentials."""
        return cls(port, device.token)

    async def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request to a path."""
        url = f"{self.url}{path}"
        return await asyncio.to_thread(self._session.request, method, url, timeout=SECONDS, **options)

    async def api(self, method: str, what: str, **options: Any) -> requests.Response:
        """Send a request of ThingsBoard's device API."""
        return await self.ask(method, f"/api/v1/{self.token}/{what}", **options)

    async def post_json(self, payload: object) -> requests.Response:
        """Post JSON of one's own making."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return await self.ask("POST", "/hse/v1/json", json=payload, headers=headers)

    async def write(self, lines: str | bytes, **options: Any) -> requests.Response:
        """Write lines as a client of InfluxDB does."""
        headers = {"Authorization": f"Token {self.token}"} | options.pop("headers", {})
        data = lines.encode() if isinstance(lines, str) else lines
        return await self.ask("POST", "/api/v2/write", data=data, headers=headers, **options)
