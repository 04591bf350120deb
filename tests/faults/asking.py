"""Asking the api for something while it is killed, restarted and cut off: until it is answered, under one Idempotency-Key."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import httpx

CALL_SECONDS_MAX = 5.0
AGAIN_SECONDS = 0.1
# There is no place, or no database, just now; or the try before, whose caller is gone, is not over for the database.
COME_AGAIN = frozenset({409, 429, 503})


async def answer_of(
    client: httpx.AsyncClient,
    path: str,
    body: Mapping[str, Any] | None,
    *,
    headers: Callable[[], Mapping[str, str]],
    failed: Callable[[httpx.Response | httpx.TransportError], None],
) -> Any:
    """The answer to a POST, however long it takes. `headers` are asked for each try; `failed` hears of each that was in vain."""
    while True:
        try:
            answer = await client.post(path, headers=dict(headers()), json=body)
        except httpx.TransportError as error:
            failed(error)
        else:
            if answer.is_success:
                return answer.json()
            failed(answer)
            assert answer.status_code in COME_AGAIN, answer.text
        await asyncio.sleep(AGAIN_SECONDS)
