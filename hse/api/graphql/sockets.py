"""A WebSocket that speaks graphql-transport-ws, from its opening to its end."""

import asyncio
from contextlib import suppress
from typing import Any

from graphql import GraphQLError
from litestar.exceptions import WebSocketDisconnect
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler
from strawberry.subscriptions.protocols.graphql_transport_ws.types import SubscribeMessage

from hse.api.graphql.context import SocketContext
from hse.api.graphql.errors import told
from hse.api.live import running
from hse.domain.errors import TooMany
from hse.domain.telemetry.live import TooManyStreams

# As when somebody proves nothing: he may come again, once he is signed in or has closed another one.
FORBIDDEN = 4403
# Subscriptions say first that, and why, nothing follows.
LAST_WORDS_SECONDS = 5.0


class SocketHandler(BaseGraphQLTransportWSHandler[Any, None]):
    """Counts each operation as a request, and closes the socket once the session or key that it was opened with has ended."""

    context: SocketContext

    async def handle(self) -> None:
        """Serve the socket."""
        try:
            self.context.hold()
            async with running(self._close_once_ended()):
                await super().handle()
        except TooManyStreams:
            await self.websocket.close(code=FORBIDDEN, reason="Forbidden")
        finally:
            self.context.let_go()

    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        """Begin an operation, when there is room for one more request; before that not even parsing is done for it."""
        if self.connection_acknowledged:
            operation = self.context.operation()
            try:
                await operation.count()
            except TooMany as refusal:
                error = told(GraphQLError(str(refusal), original_error=refusal), operation.correlation_id)
                await self.send_message({"id": message["id"], "type": "error", "payload": [error.formatted]})
                return
        await super().handle_subscribe(message)

    async def _close_once_ended(self) -> None:
        await self.context.has_ended.wait()
        await asyncio.sleep(LAST_WORDS_SECONDS)
        for operation_id in [*self.operations]:
            await self.cleanup_operation(operation_id)
        # Who has left meanwhile needs no closing.
        with suppress(WebSocketDisconnect, OSError):
            await self.websocket.close(code=FORBIDDEN, reason="session-ended")
