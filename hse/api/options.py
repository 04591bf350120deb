"""What the framework leaves out when it says which methods a path has."""

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, Message, Receive, Scope, Send


class AllowedMethods(ASGIMiddleware):
    """Lets the answer to OPTIONS name every method of the path; the framework names those of the handler that came first."""

    scopes = (ScopeType.HTTP,)

    def __init__(self, app: Litestar) -> None:
        self._methods = {
            route.path_format: ", ".join(sorted(route.methods)).encode()
            for route in app.routes
            if isinstance(route, HTTPRoute)
        }

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on."""

        async def send_all(message: Message) -> None:
            if message["type"] == "http.response.start":
                methods = self._methods.get(scope.get("path_template") or "", b"")
                message["headers"] = [
                    (name, methods if name.lower() == b"allow" and methods else value)
                    for name, value in message["headers"]
                ]
            await send(message)

        await next_app(scope, receive, send_all if scope.get("method") == "OPTIONS" else send)
