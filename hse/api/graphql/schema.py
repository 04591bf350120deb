"""The schema, and the endpoint that serves it."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, ClassVar

import msgspec
import strawberry
from cross_web import HTTPException
from graphql import DocumentNode, GraphQLError, OperationType
from litestar import Request, Response
from litestar.exceptions import ClientException
from litestar.exceptions import HTTPException as Refusal
from strawberry.exceptions import ConnectionRejectionError
from strawberry.extensions import SchemaExtension
from strawberry.litestar import make_graphql_controller
from strawberry.schema.config import StrawberryConfig
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import ExecutionContext

from hse.api.bounds import check_depth
from hse.api.graphql.alerts import AlertsQuery
from hse.api.graphql.booking import BookingMutation, BookingQuery
from hse.api.graphql.booking_notifications import NotificationsMutation, NotificationsQuery
from hse.api.graphql.context import Context, SocketContext, provide_context
from hse.api.graphql.dead_letters import DeadLettersQuery
from hse.api.graphql.device_attributes import DeviceAttributesMutation, DeviceAttributesQuery
from hse.api.graphql.device_claims import DeviceClaimsMutation
from hse.api.graphql.device_commands import DeviceCommandsMutation, DeviceCommandsQuery
from hse.api.graphql.device_profiles import DeviceProfilesMutation, DeviceProfilesQuery
from hse.api.graphql.devices import DevicesMutation, DevicesQuery
from hse.api.graphql.door_codes import DoorCodesMutation, DoorCodesQuery
from hse.api.graphql.errors import DATABASE_AWAY, refused, told
from hse.api.graphql.identity import IdentityMutation, IdentityQuery
from hse.api.graphql.limits import Limits
from hse.api.graphql.live import Subscription
from hse.api.graphql.organizations import OrganizationsMutation, OrganizationsQuery
from hse.api.graphql.provisioning_keys import ProvisioningKeysMutation, ProvisioningKeysQuery
from hse.api.graphql.sockets import SocketHandler
from hse.api.graphql.telemetry import TelemetryQuery
from hse.domain.errors import DomainError

# A WebSocket that says nothing is closed.
INIT_SECONDS_MAX = 10


@strawberry.type(description="What may be read.")
class Query(
    OrganizationsQuery,
    DevicesQuery,
    DeviceProfilesQuery,
    DeviceAttributesQuery,
    ProvisioningKeysQuery,
    TelemetryQuery,
    DeadLettersQuery,
    DeviceCommandsQuery,
    AlertsQuery,
    BookingQuery,
    DoorCodesQuery,
    NotificationsQuery,
    IdentityQuery,
):
    """What may be read."""


@strawberry.type(description="What may be done. Fields are done one after the other, each in a transaction of its own.")
class Mutation(
    OrganizationsMutation,
    DevicesMutation,
    DeviceProfilesMutation,
    DeviceAttributesMutation,
    ProvisioningKeysMutation,
    DeviceClaimsMutation,
    DeviceCommandsMutation,
    BookingMutation,
    DoorCodesMutation,
    NotificationsMutation,
    IdentityMutation,
):
    """What may be done."""


class SocketOperation(SchemaExtension):
    """Makes each operation of a WebSocket what a request is: it shares nothing with the ones before."""

    def on_operation(self) -> Iterator[None]:
        """Give the operation a context of its own before anything is run."""
        context: Context | SocketContext = self.execution_context.context
        if isinstance(context, SocketContext):
            self.execution_context.context = context.operation()
        yield

    def on_validate(self) -> Iterator[None]:
        """Refuse a subscription that no socket carries."""
        context: Context = self.execution_context.context
        if context.websocket is None and _subscribes(self.execution_context.graphql_document):
            error = refused("request.invalid", "subscribe over a WebSocket that speaks graphql-transport-ws")
            self.execution_context.pre_execution_errors = [error]
        yield


def _subscribes(document: DocumentNode | None) -> bool:
    definitions = () if document is None else document.definitions
    return any(getattr(node, "operation", None) is OperationType.SUBSCRIPTION for node in definitions)


class Graph(strawberry.Schema):
    """The schema of the control plane."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Put what the caller is told in the place of each error. Every answer comes by here once, whichever way it went."""
        context = None if execution_context is None else execution_context.context
        correlation_id = context.correlation_id if isinstance(context, Context) else None
        errors[:] = [told(error, correlation_id) for error in errors]


schema = Graph(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
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
        connection_init_wait_timeout=timedelta(seconds=INIT_SECONDS_MAX),
    )
):
    """POST a query, its variables and the operation's name as JSON; subscribe over graphql-transport-ws.

    A WebSocket proves who opened it as any request does, or with the payload of `connection_init`:
    `{"authorization": "Bearer ..."}` or `{"x-api-key": "..."}`.
    """

    include_in_schema = False
    opt: ClassVar[dict[str, Any]] = {"proves_later": True}
    graphql_transport_ws_handler_class = SocketHandler
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

    async def on_ws_connect(self, context: Any) -> Any:
        """Take the first message of a WebSocket. Raises `ConnectionRejectionError`, which closes it."""
        socket: SocketContext = context
        try:
            await socket.prove()
            socket.hold()
        except (DomainError, *DATABASE_AWAY) as error:
            raise ConnectionRejectionError from error
        return strawberry.UNSET

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
