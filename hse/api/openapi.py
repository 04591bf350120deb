"""The OpenAPI document: what the framework finds out about the handlers, and what it cannot know.

Added here are how callers prove themselves, which refusals an operation may answer, every code that a problem may carry, and the
headers that stand on answers. The document and its page are no secret: they are open to everybody, and hold nothing of any tenant.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, TypeVar

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Contact
from litestar.routes import HTTPRoute
from litestar.types.internal_types import PathParameterDefinition

import hse.domain
from hse.api.bodies import Body
from hse.api.openapi_forms import add_examples, complete_body, tidy
from hse.api.problems import CODE_OF_STATUS, DEFECT_CODE, PROBLEM_MEDIA_TYPE, STATUS_OF_KIND
from hse.api.security import ACCESS_COOKIE
from hse.domain.errors import DomainError

Document = dict[str, Any]
T = TypeVar("T")

DESCRIPTION = """
The control plane of a smart-building operator: who exists, and who may do what.

**Proving who you are.** Send an access token as `Authorization: Bearer`, or the session's cookie, or an API key as `X-API-Key`.

**What you may not see is not there**: it answers 404. What you may see and not do answers 403.

**Changes.** In a PATCH a field that is absent stays as it is, and null empties it. Send the ETag that you read as `If-Match`, and
the change is made only if nobody made another one meanwhile. Send a POST with an `Idempotency-Key`, and it is done once, however
often it arrives within 24 hours.

**Lists** come in pages: `next_cursor` of one is `cursor` of the next.

**Refusals** are problems (RFC 9457). Their `code` is stable; the schema `Problem` lists all of them.

**Limits.** `RateLimit-*` headers tell how many more requests fit; a 429 says in `Retry-After` when to come back. An address may
have 8 KiB and 100 parameters (else 414, 400), all headers together 32 KiB (431), a body 1 MiB (413) and 64 levels of JSON (400).
"""

TAGS = {
    "authentication": "Sign in, go on, sign out.",
    "own account": "Your own password and second factor.",
    "devices": "The registry of devices, their gateways and their tokens.",
    "device profiles": "What devices of a kind measure, and how what they say becomes values.",
    "alarms": "What devices raise and people must see.",
    "commands": "Commands to devices, and what came of them.",
    "guests": "Guests, who accompanies them, and what is kept of them.",
    "bookings": "Who stays in which area and when, what is free, and calendars of it.",
    "door codes": "The codes of locks: whose, when they open, and whether they are there.",
    "notifications": "What guests are told of their bookings, and in which words.",
    "telemetry": "What devices report: how they are now, their events, and series for charts.",
    "live": "What happens, as it happens.",
    "users": "People: what they are, and where they work.",
    "invitations": "How people come in.",
    "roles": "What people may do, as bundles of actions.",
    "sessions": "Where somebody is signed in.",
    "imports": "Many establishments, areas and devices at once, from a file.",
    "onboarding": "The steps of a first sign-in.",
    "organizations": "Partner companies, organisations, establishments and areas.",
    "api keys": "What programs act with, in the name of a person.",
    "audit": "Who changed what, from where.",
    "health": "Whether the process can do its work.",
}

SECURITY_SCHEMES: Document = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An access token, for 15 minutes.",
    },
    "cookie": {"type": "apiKey", "in": "cookie", "name": ACCESS_COOKIE, "description": "The same token in a browser."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "`hse_<prefix>_<secret>`"},
}

# What a schema of a stream of server-sent events is about is each of them, and not the stream as one text.
EVENT: Document = {
    "type": "object",
    "description": "One message of the stream.",
    "properties": {
        "event": {"type": "string", "description": "What kind of message it is."},
        "data": {"type": "string", "description": "JSON."},
        "id": {"type": "string", "description": "Send the last one as `Last-Event-ID` to go on behind it."},
        "retry": {"type": "integer", "description": "Milliseconds to wait before coming back."},
    },
}

REASONS = {
    400: "The request cannot be read.",
    401: "You did not prove who you are.",
    403: "You may see this and not do it, or lack the permission altogether.",
    404: "There is no such thing, or none that you may see.",
    408: "The request did not come in time.",
    409: "It is against a rule, or something is in the way: the code says what.",
    412: "It was changed since you read it.",
    413: "The body is too large.",
    414: "The address is too long.",
    422: "The request does not have the form of this operation, or a value is refused.",
    429: "You ask too often, or tried too often.",
    431: "The headers are too large.",
    503: "Something that is needed does not answer just now.",
}

# What any request may be answered that is out of bounds: it is told once, and not at each operation.
EVERYWHERE = (408, 414, 431)


def openapi_config() -> OpenAPIConfig:
    """What the framework is told."""
    return OpenAPIConfig(
        title="HSE control plane",
        version=version("hse"),
        description=DESCRIPTION.strip(),
        contact=Contact(name="The operator of this installation"),
        use_handler_docstrings=True,
        operation_id_creator=operation_id,
        # The framework's own document is this one without what is added here; it is for who is signed in, and nobody is led there.
        path="/docs/framework",
        render_plugins=[JsonRenderPlugin()],
    )


def operation_id(handler: HTTPRouteHandler, _method: Any, _path: list[str | PathParameterDefinition]) -> str:
    """The handler's own name: short, and unique because a test says so."""
    return handler.handler_name


def document_of(app: Litestar) -> Document:
    """The whole document, as JSON holds it."""
    document: Document = app.openapi_schema.to_schema()
    components = document.setdefault("components", {})
    components["securitySchemes"] = SECURITY_SCHEMES
    components.setdefault("schemas", {})["Problem"] = problem_schema()
    components["responses"] = {
        f"Refused{status}": _problem_response(status, reason)
        for status, reason in REASONS.items()
        if status not in EVERYWHERE
    }
    used = {
        tag for item in document["paths"].values() for operation in item.values() for tag in operation.get("tags", ())
    }
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items() if name in used]
    document["security"] = [{name: []} for name in SECURITY_SCHEMES]
    for path, method, handler in handlers(app):
        _complete(document, document["paths"][path][method.lower()], handler)
    tidied: Document = tidy(document)
    for body in _subclasses(Body):
        if (schema := tidied["components"]["schemas"].get(body.__name__)) is not None:
            complete_body(schema, body)
    add_examples(tidied)
    return tidied


def handlers(app: Litestar) -> Iterator[tuple[str, str, HTTPRouteHandler]]:
    """Path, method and handler of every operation that the document shows."""
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for method, (handler, _) in route.route_handler_map.items():
                if handler.resolve_include_in_schema() and method != "OPTIONS":
                    yield route.path_format, method, handler


def codes() -> dict[str, tuple[int, str]]:
    """Every code that a problem may carry, with its status and what it says."""
    found = {code: (status, REASONS.get(status, "")) for status, code in CODE_OF_STATUS.items()}
    found[DEFECT_CODE] = (500, "Something went wrong here: report it with the correlation id.")
    for module in pkgutil.walk_packages(hse.domain.__path__, "hse.domain."):
        importlib.import_module(module.name)
    for error in _subclasses(DomainError):
        found[error.code] = (STATUS_OF_KIND[error.kind], " ".join((error.__doc__ or "").split()))
    return dict(sorted(found.items()))


def _subclasses(cls: type[T]) -> Iterator[type[T]]:
    for one in cls.__subclasses__():
        yield one
        yield from _subclasses(one)


def problem_schema() -> Document:
    """The schema of a problem. `code` lists what there is; a client must expect new ones."""
    rows = [f"| `{code}` | {status} | {text} |" for code, (status, text) in codes().items()]
    return {
        "type": "object",
        "title": "Problem",
        "description": "\n".join(
            ["A refusal (RFC 9457).", "", "| code | status | what it says |", "|---|---|---|", *rows]
        ),
        "required": ["type", "title", "status", "detail", "code", "correlation_id"],
        "properties": {
            "type": {"type": "string", "examples": ["urn:hse:problem:resource.not-found"]},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What is wrong, and what to do."},
            "code": {"type": "string", "enum": list(codes())},
            "correlation_id": {"type": ["string", "null"], "description": "Finds the lines of the log."},
        },
        "additionalProperties": True,
    }


def _problem_response(status: int, reason: str) -> Document:
    response: Document = {
        "description": reason,
        "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in (429, 503):
        response["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return response


def _complete(document: Document, operation: Document, handler: HTTPRouteHandler) -> None:
    """What an operation may answer beside what its handler returns."""
    # The handler's docstring is one sentence as a rule: the first line is the title, the whole the text.
    operation["summary"] = operation.get("description", "").splitlines()[0].removesuffix(".")
    if handler.opt.get("is_public"):
        operation["security"] = []
    responses: Document = operation.setdefault("responses", {})
    # The framework's own idea of a refusal has not the form of a problem.
    if not handler.opt.get("is_unlimited"):
        for status in [status for status in responses if status >= "400"]:
            del responses[status]
    for status in sorted({*refusals(operation, handler), *handler.opt.get("refusals", ())}):
        responses[str(status)] = {"$ref": f"#/components/responses/Refused{status}"}
    body = handler.parsed_fn_signature.parameters.get("data")
    if body is not None and body.has_default:
        operation["requestBody"]["required"] = False
    for status, response in responses.items():
        if status == "204":
            # The framework says that there is a body, and that it is null.
            response.pop("content", None)
        if (stream := response.get("content", {}).get("text/event-stream")) is not None:
            stream["schema"] = EVENT
        if status == "200" and _has_version(document, response):
            response.setdefault("headers", {})["ETag"] = {
                "description": "The version; send it as `If-Match` with a change.",
                "schema": {"type": "string"},
            }


def refusals(operation: Document, handler: HTTPRouteHandler) -> set[int]:
    """The statuses of the refusals that an operation may answer."""
    if handler.opt.get("is_unlimited"):
        return set()
    parameters = operation.get("parameters", [])
    found = {429, 503}
    is_change = bool(handler.http_methods & {"POST", "PUT", "PATCH", "DELETE"})
    if not handler.opt.get("is_public"):
        found |= {401}
    if is_change or not handler.opt.get("is_public"):
        found |= {403}
    if any(parameter["in"] == "path" for parameter in parameters):
        found |= {404}
    if parameters or "requestBody" in operation:
        found |= {422}
    if "requestBody" in operation:
        found |= {400, 404, 413}
    if is_change:
        found |= {409}
    if any(parameter["name"] == "If-Match" for parameter in parameters):
        found |= {412}
    return found


def _has_version(document: Document, response: Document) -> bool:
    schema: Document = response.get("content", {}).get("application/json", {}).get("schema", {})
    name = schema.get("$ref", "").rsplit("/", 1)[-1]
    return "version" in document["components"]["schemas"].get(name, {}).get("properties", {})
