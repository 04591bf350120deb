"""The OpenAPI document at `/docs/openapi.json`, open to everybody: what can be asked is no secret."""

from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

from hse.api.openapi import document_of


@get("/docs/openapi.json", opt={"is_public": True}, include_in_schema=False)
async def document(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The OpenAPI document."""
    state = request.app.state
    if "openapi_document" not in state:
        state.openapi_document = msgspec.json.encode(document_of(request.app))
    return Response(content=state.openapi_document, media_type="application/json")


def handlers() -> list[HTTPRouteHandler]:
    """What serves the document."""
    return [document]
