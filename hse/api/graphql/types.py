"""GraphQL types and inputs from what REST shows and takes, so that the two cannot drift apart."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, TypeVar, Union

import msgspec
import strawberry
from strawberry.scalars import JSON

from hse.domain.errors import Invalid

C = TypeVar("C", bound=type)
B = TypeVar("B", bound=msgspec.Struct)


def mirrors(view: type[Any]) -> Callable[[C], C]:
    """Make a class the GraphQL type of a view: with its fields, and those that the class adds, which lead to other things."""

    def decorate(cls: C) -> C:
        hints = typing.get_type_hints(view)
        shown = {item.name: graphql_type(hints[item.name]) for item in dataclasses.fields(view)}
        cls.__annotations__ = {**shown, **inspect.get_annotations(cls)}
        return strawberry.type(cls, name=view.__name__, description=summary(view))

    return decorate


@cache
def input_of(body: type[msgspec.Struct]) -> Any:
    """The GraphQL input with the fields of a request body. What may be left out is UNSET then."""
    annotations: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for item in msgspec.structs.fields(body):
        kind = graphql_type(item.type)
        annotations[item.name] = kind if item.required else kind | None
        if not item.required:
            values[item.name] = strawberry.UNSET
    cls = type(body.__name__, (), {"__annotations__": annotations, "__module__": __name__, **values})
    return strawberry.input(cls, name=body.__name__, description=summary(body))


def body_of(body: type[B], given: Any) -> B:
    """What the caller gave as the body that REST takes, under the same limits. Raises `Invalid`."""
    try:
        return msgspec.convert(given_fields(given), body)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$.")
        raise Invalid(place.rstrip("`") or "input", reason) from error


def given_fields(given: Any) -> dict[str, Any]:
    """The fields of an input that the caller gave, as plain values."""
    values = {item.name: getattr(given, item.name) for item in dataclasses.fields(given)}
    return {name: _plain(value) for name, value in values.items() if value is not strawberry.UNSET}


def graphql_type(kind: Any) -> Any:
    """The GraphQL type for a type of a view or a body: limits and UNSET are taken off, mappings are JSON."""
    origin = typing.get_origin(kind)
    if origin is Annotated:
        return graphql_type(typing.get_args(kind)[0])
    if origin in (Union, types.UnionType):
        kinds = [graphql_type(one) for one in typing.get_args(kind) if one is not msgspec.UnsetType]
        return Union[tuple(kinds)]  # noqa: UP007 (made at run time)
    if origin in (list, tuple, set, frozenset) or (isinstance(origin, type) and issubclass(origin, typing.Sequence)):
        return list[graphql_type(typing.get_args(kind)[0])]  # type: ignore[misc]
    if origin is typing.Literal:
        return str
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return input_of(kind)
    if kind is Any or origin in (dict, Mapping):
        return JSON
    return kind


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return given_fields(value) if dataclasses.is_dataclass(value) else value


def summary(cls: type[Any]) -> str:
    """The first line of a docstring."""
    return (cls.__doc__ or "").partition("\n")[0]
