"""The schema, and the endpoint that serves it."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import strawberry
from cross_web import HTTPException
from graphql import GraphQLError
from litestar import Request, Response
from litestar.exceptions import ClientException
from litestar.exceptions import HTTPException as Refusal
from strawberry.extensions import SchemaExtension
from strawberry.litestar import make_graphql_controller
from strawberry.schema.config import StrawberryConfig
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import ExecutionContext

from hse.api.bounds import check_depth
from hse.api.graphql.alerts import AlertsQuery
from hse.api.graphql.context import Context, provide_context
from hse.api.graphql.device_commands import DeviceCommandsMutation, DeviceCommandsQuery
from hse.api.graphql.devices import DevicesMutation, DevicesQuery
from hse.api.graphql.errors import told
from hse.api.graphql.identity import IdentityMutation, IdentityQuery
from hse.api.graphql.limits import Limits
from hse.api.graphql.organizations import OrganizationsMutation, OrganizationsQuery
from hse.api.graphql.telemetry import TelemetryQuery
from hse.domain.errors import TooMany


@strawberry.type(description="What may be read.")
class Query(OrganizationsQuery, DevicesQuery, TelemetryQuery, DeviceCommandsQuery, AlertsQuery, IdentityQuery):
    """What may be read."""


@strawberry.type(description="What may be done. Fields are done one after the other, each in a transaction of its own.")
class Mutation(OrganizationsMutation, DevicesMutation, DeviceCommandsMutation, IdentityMutation):
    """What may be done."""


class SocketOperation(SchemaExtension):
    """Makes each operation of a WebSocket what a request is: it counts as one, and shares nothing with the ones before."""

    def on_operation(self) -> Iterator[None]:
        """Renew the context before anything is run."""
        context: Context = self.execution_context.context
        if context.websocket is not None:
            self.execution_context.context = context.renewed()
        yield

    async def on_validate(self) -> AsyncIterator[None]:
        """Count the operation before it costs more than parsing it did."""
        context: Context = self.execution_context.context
        if context.websocket is not None:
            try:
                await context.count()
            except TooMany as error:
                self.execution_context.pre_execution_errors = [GraphQLError(str(error), original_error=error)]
        yield


class Graph(strawberry.Schema):
    """The schema of the control plane."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Put what the caller is told in the place of each error. Every answer comes by here once, whichever way it went."""
        context: Context | None = None if execution_context is None else execution_context.context
        errors[:] = [told(error, context.correlation_id if context is not None else None) for error in errors]


schema = Graph(
    query=Query,
    mutation=Mutation,
    config=StrawberryConfig(batching_config=None, sort_schema=True),
    extensions=[SocketOperation, Limits],
)


class GraphQLEndpoint(
    make_graphql_controller(  # type: ignore[misc]
        schema,
        path="/graphql",
        graphql_ide=None,
        allow_queries_via_get=False,
        context_getter=provide_context,
        subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL],
    )
):
    """POST a query, its variables and the operation's name as JSON."""

    include_in_schema = False
    # Only POST: what a link or an image can make a browser send does nothing.
    handle_http_get = None

    async def execute_request(self, request: Request[Any, Any, Any], context: Any, root_value: Any) -> Response[Any]:
        """Answer a request; one that is none is refused with a problem, as everywhere."""
        if request.content_type[0] != "application/json":
            raise Refusal(status_code=415, detail="send application/json")
        try:
            answer: Response[Any] = await self.run(request, context=context, root_value=root_value)
        except HTTPException as error:
            raise ClientException(status_code=error.status_code, detail=error.reason) from error
        return answer

    def decode_json(self, data: str | bytes) -> object:
        """Decode a body. Raises `ClientException`."""
        try:
            decoded = msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise ClientException(detail="the body is no JSON, or nests too deeply") from error
        if not isinstance(decoded, dict):
            raise ClientException(detail="send one operation, as an object")
        check_depth(decoded)
        return decoded

    def encode_json(self, data: object) -> bytes:
        """Encode an answer."""
        return msgspec.json.encode(data)
