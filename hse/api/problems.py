"""The one place that turns refusals into RFC 9457 problems. What nobody expected is masked, and logged with the correlation id."""

import re
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.handlers import BaseRouteHandler
from litestar.routes import HTTPRoute
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from hse.api.acting import Answered
from hse.domain.errors import Contended, DomainError, ErrorKind, Invalid

PROBLEM_MEDIA_TYPE = "application/problem+json"
STATUS_OF_KIND = {
    ErrorKind.INVALID: 422,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.CONFLICT: 409,
    ErrorKind.STALE: 412,
    ErrorKind.TOO_MANY: 429,
    ErrorKind.UNAVAILABLE: 503,
}
# Codes of what the framework refuses before the domain is asked.
CODE_OF_STATUS = {
    400: "request.malformed",
    401: "identity.unauthenticated",
    403: "permission.missing",
    404: "resource.not-found",
    405: "request.method-not-allowed",
    406: "request.not-acceptable",
    408: "request.timed-out",
    413: "request.too-large",
    414: "request.address-too-long",
    415: "request.unsupported-media-type",
    429: "request.too-many",
    431: "request.headers-too-large",
    503: "service.unavailable",
}
DEFECT_CODE = "service.defect"
RETRY_AFTER_SECONDS = 2
CONTENTIONS = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    # A lock that was not got in time.
    psycopg.errors.LockNotAvailable,
)

# How the framework says that a parameter is missing; of all other mistakes it makes a list.
MISSING = re.compile(r"Missing required (query|header|cookie|path) parameter '([^']+)'")

logger = structlog.get_logger(__name__)

# By handler: the parameters that are called otherwise in Python than by those who ask.
_wire_names: WeakKeyDictionary[BaseRouteHandler, dict[str, str]] = WeakKeyDictionary()


def problem(status: int, code: str, detail: str, request: Request[Any, Any, Any], **more: Any) -> Response[Any]:
    """A problem: `code` is stable, `detail` says what to do, `correlation_id` finds the log lines."""
    content = problem_content(status, code, detail, request.scope["state"].get("correlation_id")) | more
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="hse"'
    if status == 413:
        # The rest of the body is not waited for.
        headers["Connection"] = "close"
    if status in (429, 503):
        headers["Retry-After"] = str(more.get("retry_after_seconds", RETRY_AFTER_SECONDS))
    return Response(content=content, status_code=status, media_type=PROBLEM_MEDIA_TYPE, headers=headers)


def problem_content(status: int, code: str, detail: str, correlation_id: str | None) -> dict[str, Any]:
    """What every problem tells."""
    return {
        "type": f"urn:hse:problem:{code}",
        "title": code.replace(".", ": ").replace("-", " "),
        "status": status,
        "detail": detail,
        "code": code,
        "correlation_id": correlation_id,
    }


def fields_of(error: DomainError) -> dict[str, Any]:
    """What an error declares beside its text, without what a problem says anyway."""
    reserved = {"type", "title", "status", "detail", "code", "correlation_id"}
    return {name: value for name, value in vars(error).items() if not name.startswith("_") and name not in reserved}


def on_domain_error(request: Request[Any, Any, Any], error: DomainError) -> Response[Any]:
    """A refusal of the domain."""
    if isinstance(error, Invalid):
        error = Invalid(wire_names(request).get(error.field, error.field), error.reason)
    return problem(STATUS_OF_KIND[error.kind], error.code, str(error), request, **fields_of(error))


def on_validation_error(request: Request[Any, Any, Any], error: ValidationException) -> Response[Any]:
    """A body, a query or a path that does not have the form of the operation: each mistake with its place."""
    mistakes = error.extra if isinstance(error.extra, list) else []
    errors = []
    for one in mistakes:
        if isinstance(one, dict):
            place, name = _place(one), str(one.get("key", ""))
            name = name if place == "body" else wire_names(request).get(name, name)
            errors.append({"field": name, "in": place, "reason": str(one.get("message", ""))})
    if not mistakes and (missing := MISSING.match(error.detail)) is not None:
        errors = [{"field": missing[2], "in": missing[1], "reason": "is required"}]
    return problem(
        422, "request.invalid", "the request does not have the form of this operation", request, errors=errors
    )


def wire_names(request: Request[Any, Any, Any]) -> dict[str, str]:
    """What the parameters of the request's operation are called by who asks, where that is not their name in Python."""
    handler = request.route_handler
    if handler not in _wire_names:
        _wire_names[handler] = {
            one.field_name: one.field_alias
            for route in request.app.routes
            if isinstance(route, HTTPRoute)
            for known, model in route.route_handler_map.values()
            if known is handler
            for one in (*model.expected_query_params, *model.expected_header_params, *model.expected_cookie_params)
        }
    return _wire_names[handler]


def _place(mistake: dict[str, Any]) -> str:
    """Where a mistake stands: query, path, header, cookie or body."""
    place = mistake.get("source", "body")
    return str(getattr(place, "value", place))


def on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """A refusal of the framework."""
    status = error.status_code
    if status >= 500 and status != 503:
        return on_unexpected(request, error)
    code = CODE_OF_STATUS.get(status, "request.refused")
    refusal = problem(status, code, error.detail, request)
    # Such as Allow, which says what could be asked instead.
    refusal.headers.update(error.headers or {})
    return refusal


def is_contention(error: Exception) -> bool:
    """Whether the database ended a transaction because another one stood in its way."""
    return isinstance(getattr(error, "orig", None), CONTENTIONS)


def on_database_away(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """The database does not answer, or has no connection to spare; or two stood in each other's way."""
    if is_contention(error):
        return on_domain_error(request, Contended())
    logger.warning("database unavailable", error=type(error).__name__)
    return problem(503, "service.unavailable", "the database does not answer just now: try again in a moment", request)


def on_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """A defect: the caller learns the correlation id and nothing else."""
    logger.error("unexpected error", exc_info=error)
    return problem(500, DEFECT_CODE, "something went wrong here; report it with the correlation id", request)


def on_answered(_: Request[Any, Any, Any], answered: Answered) -> Response[Any]:
    """A request that was done before."""
    headers = {"Idempotency-Replayed": "true"}
    return Response(content=answered.body, status_code=answered.status, media_type="application/json", headers=headers)


EXCEPTION_HANDLERS: dict[Any, Any] = {
    DomainError: on_domain_error,
    ValidationException: on_validation_error,
    HTTPException: on_http_error,
    OperationalError: on_database_away,
    InterfaceError: on_database_away,
    PoolTimeout: on_database_away,
    Answered: on_answered,
    Exception: on_unexpected,
}
