"""The OpenAPI document at `/docs/openapi.json`, and a page at `/docs` to read it and try it; open to everybody: what can be asked
is no secret.

The page is Swagger UI, whose files come from a package of Python's index, and a few lines of ours that start it. It names the
hashes of these files as their authors publish them, so a browser runs nothing else, and it asks no other host for anything.
"""

import asyncio
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from hse.api.openapi import document_of

PUBLIC = {"is_public": True}
SWAGGER_UI_VERSION = "5.31.0"
MEDIA_TYPES = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
# Nothing from elsewhere, nothing inline. Its icons are images within its style sheet.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
# The files change with a release; who has them need not ask for them at every look.
ASSET_CACHE = "public, max-age=3600"


@get("/docs/openapi.json", opt=PUBLIC, include_in_schema=False)
async def document(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The OpenAPI document."""
    state = request.app.state
    if "openapi_document" not in state:
        # Once, and beside the requests that are under way: it takes a second.
        state.openapi_document = msgspec.json.encode(await asyncio.to_thread(document_of, request.app))
    return Response(content=state.openapi_document, media_type="application/json")


@get("/docs", opt=PUBLIC, include_in_schema=False)
async def page() -> Response[bytes]:
    """The page."""
    headers = {"Content-Security-Policy": CONTENT_POLICY}
    return Response(content=asset("index.html"), media_type=MediaType.HTML, headers=headers)


@get("/docs/{name:str}", opt=PUBLIC, include_in_schema=False)
async def page_asset(name: FromPath[str]) -> Response[bytes]:
    """A script or a style sheet of the page."""
    if name not in assets():
        raise NotFoundException("there is no such file")
    media_type = MEDIA_TYPES[name.rpartition(".")[2]]
    return Response(content=asset(name), media_type=media_type, headers={"Cache-Control": ASSET_CACHE})


@cache
def assets() -> dict[str, Traversable]:
    """Where the files of the page are, by name."""
    own = files("hse.api") / "page"
    swagger_ui = files("swagger_ui_bundle") / "vendor" / f"swagger-ui-{SWAGGER_UI_VERSION}"
    return {
        **{name: own / name for name in ("page.css", "page.js")},
        **{name: swagger_ui / name for name in ("swagger-ui.css", "swagger-ui-bundle.js")},
    }


@cache
def asset(name: str) -> bytes:
    """A file of the page."""
    place = files("hse.api") / "page" / name if name == "index.html" else assets()[name]
    return place.read_bytes()


def handlers() -> list[HTTPRouteHandler]:
    """What serves the document and the page."""
    return [document, page, page_asset]
