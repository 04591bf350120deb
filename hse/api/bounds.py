"""How large a request may be. What a stranger can have this process keep is bounded at each step of the way.

The server's protocol keeps no more of a head that is not complete than `HEAD_BYTES_MAX` and one read, and waits for it no longer
than `HEAD_SECONDS_MAX`, and for the body no longer than `BODY_SECONDS_MAX`. A head that is complete is judged by the middleware,
before anything is looked up; the body by the framework (`request_max_body_size`); how deep its JSON nests, here. Below that,
every field has its own limit (`hse.api.bodies`).
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, ClassVar

import msgspec
from litestar import Request
from litestar.enums import ScopeType
from litestar.exceptions import ClientException, HTTPException, InternalServerException
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from hse.api.problems import CODE_OF_STATUS, PROBLEM_MEDIA_TYPE, problem_content
from hse.domain.metadata import is_deeper_than

REQUEST_BYTES_MAX = 1 << 20
# Cookies, a token and what proxies add are 4 KiB.
HEAD_BYTES_MAX = 32 << 10
HEAD_SECONDS_MAX = 20.0
# A file of 5 MiB at 43 KiB a second.
BODY_SECONDS_MAX = 120.0
# A cursor has 1000 characters at most, a filter some dozens.
ADDRESS_BYTES_MAX = 8 << 10
QUERY_PARAMETERS_MAX = 100
# Bodies nest some four deep, and metadata below that (`hse.domain.metadata`).
JSON_DEPTH_MAX = 64


class RequestBounds(ASGIMiddleware):
    """Refuses a request whose address or headers are too large."""

    scopes = (ScopeType.HTTP, ScopeType.WEBSOCKET)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on when it is within bounds. Raises `HTTPException`."""
        query = scope["query_string"]
        # Which servers need not give as it came.
        path = scope.get("raw_path") or scope["path"].encode()
        if len(path) + len(b"?") + len(query) > ADDRESS_BYTES_MAX:
            raise HTTPException(status_code=414, detail=f"an address may have {ADDRESS_BYTES_MAX} bytes")
        if query.count(b"&") >= QUERY_PARAMETERS_MAX:
            raise ClientException(detail=f"an address may have {QUERY_PARAMETERS_MAX} parameters")
        if sum(len(name) + len(value) for name, value in scope["headers"]) > HEAD_BYTES_MAX:
            raise HTTPException(status_code=431, detail=f"all headers together may have {HEAD_BYTES_MAX} bytes")
        await next_app(scope, receive, send)


class BoundedRequest(Request[Any, Any, Any]):
    """A request whose JSON nests no deeper than anything here does; one that breaks off is no defect of ours."""

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body, piece by piece. Raises `ClientException`."""
        try:
            async for piece in super().stream():
                yield piece
        except InternalServerException as error:
            raise ClientException(detail="the body broke off") from error

    async def json(self) -> Any:
        """The body. Raises `ClientException`, and the framework's exception for what is no JSON."""
        try:
            value = await super().json()
        except RecursionError as error:
            raise _too_deep() from error
        check_depth(value)
        return value


def check_depth(value: Any) -> None:
    """Raises `ClientException` for JSON that nests too deeply."""
    if is_deeper_than(JSON_DEPTH_MAX, value):
        raise _too_deep()


def _too_deep() -> ClientException:
    return ClientException(detail=f"the body nests too deeply: {JSON_DEPTH_MAX} levels at most")


class BoundedHttpProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, which by itself keeps whatever comes of a head, for as long as that takes."""

    head_seconds_max: ClassVar[float] = HEAD_SECONDS_MAX
    body_seconds_max: ClassVar[float] = BODY_SECONDS_MAX

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection was opened: a head is expected."""
        super().connection_made(transport)
        self._is_in_head = True
        self._head_bytes = 0
        self._patience: asyncio.TimerHandle | None = None
        self._wait(self.head_seconds_max)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a piece of the head or of the body."""
        if self._is_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(431, f"all headers together may have {HEAD_BYTES_MAX} bytes")

    def on_message_begin(self) -> None:
        """The first bytes of a head are there."""
        super().on_message_begin()
        if self._patience is None:
            self._wait(self.head_seconds_max)

    def on_headers_complete(self) -> None:
        """The head is there; what follows is the body."""
        self._is_in_head = False
        self._wait(self.body_seconds_max)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is there; what follows is another request's head."""
        self._is_in_head = True
        self._head_bytes = 0
        self._stop_waiting()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Another protocol goes on, with bounds of its own."""
        self._stop_waiting()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, msg)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(seconds, self._lose_patience)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        self._patience = None
        if not self._is_in_head and self.cycle.response_started:
            self.transport.close()
        self._refuse(408, "the request did not come in time")

    def _refuse(self, status: int, detail: str, *more: tuple[bytes, bytes]) -> None:
        """Answer in the application's stead, and hang up."""
        if self.transport.is_closing():
            return
        body = msgspec.json.encode(problem_content(status, CODE_OF_STATUS[status], detail, None))
        headers = {
            b"content-type": PROBLEM_MEDIA_TYPE.encode(),
            b"content-length": str(len(body)).encode(),
            b"connection": b"close",
            b"cache-control": b"no-store",
            b"x-content-type-options": b"nosniff",
            **dict(more),
        }
        lines = [b"%b: %b\r\n" % header for header in headers.items()]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self.transport.close()
