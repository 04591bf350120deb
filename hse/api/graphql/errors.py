"""Refusals in GraphQL: the codes of REST's problems in `extensions`. What nobody expected is masked, and logged."""

from typing import Any

import structlog
from graphql import GraphQLError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from strawberry.utils.str_converters import to_camel_case

from hse.api.problems import fields_of, is_contention
from hse.domain.errors import Contended, DomainError, ErrorKind

DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout)

logger = structlog.get_logger(__name__)


def refused(code: str, message: str) -> GraphQLError:
    """The refusal of an operation as a whole."""
    return GraphQLError(message, extensions={"code": code, "kind": ErrorKind.INVALID.value})


def told(error: GraphQLError, correlation_id: str | None) -> GraphQLError:
    """An error as the caller is told it: with its code, and the correlation id that finds the log lines."""
    message, extensions = _explained(error)
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions={**extensions, "correlationId": correlation_id},
    )


def _explained(error: GraphQLError) -> tuple[str, dict[str, Any]]:
    original = error.original_error
    if isinstance(original, OperationalError) and is_contention(original):
        original = Contended()
    if isinstance(original, DomainError):
        return str(original), {"code": original.code, "kind": original.kind.value, **_fields(original)}
    if isinstance(original, DATABASE_AWAY):
        logger.warning("database unavailable", error=type(original).__name__)
        message = "the database does not answer just now: try again in a moment"
        return message, {"code": "service.unavailable", "kind": ErrorKind.UNAVAILABLE.value}
    if "code" in (error.extensions or {}):
        return error.message, {**(error.extensions or {})}
    if isinstance(original, RecursionError) and error.path is None:
        return "the operation nests too deeply", {"code": "graphql.too-deep", "kind": ErrorKind.INVALID.value}
    if _is_of_the_request(error):
        return error.message, {"code": _code(error.message), "kind": ErrorKind.INVALID.value}
    logger.error("unexpected error", exc_info=original or error, path=".".join(str(step) for step in error.path or ()))
    message = "something went wrong here; report it with the correlation id"
    return message, {"code": "service.defect", "kind": "defect"}


def _is_of_the_request(error: GraphQLError) -> bool:
    """Whether the request does not parse, does not fit the schema, or its variables do not: that is about no path.

    An argument is found wanting later, when a variable is null where none may be.
    """
    if error.path is not None:
        return error.original_error is None and error.message.startswith("Argument ")
    return (error.original_error is None or isinstance(error.original_error, GraphQLError)) or error.message.startswith(
        "Variable "
    )


def _code(message: str) -> str:
    if not message.startswith("Syntax Error"):
        return "request.invalid"
    if "tokens. Parsing aborted" in message:
        return "graphql.too-many-tokens"
    return "graphql.too-deep" if "nested too deeply" in message else "request.malformed"


def _fields(error: DomainError) -> dict[str, Any]:
    """What an error declares, in the names that this caller knows."""
    fields = {to_camel_case(name): value for name, value in fields_of(error).items()}
    if isinstance(fields.get("field"), str):
        fields["field"] = to_camel_case(fields["field"])
    return fields
