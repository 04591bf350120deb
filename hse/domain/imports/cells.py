"""From cells to values: which columns a kind of row has, what its cells may hold, and under which name a command takes it."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from hse.domain.errors import Invalid
from hse.domain.imports.model import BLANKS, Kind, Row

TRUE = {"true", "yes", "1", "verdadero", "si", "sí"}
FALSE = {"false", "no", "0", "falso"}
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,9}")
PATH_STEP = re.compile(r"((?:\\[/\\]|[^/])*)(/|\Z)")

Reading = Callable[[str, str, str], Any]


def _text(_: str, text: str, __: str) -> str:
    return text


def _number(column: str, text: str, delimiter: str) -> float:
    plain = text.replace(",", ".") if delimiter == ";" else text
    if NUMBER.fullmatch(plain) is None or not math.isfinite(float(plain)):
        raise Invalid(column, f"{text[:40]!r} is no number, such as -33.41")
    return float(plain)


def _whole_number(column: str, text: str, _: str) -> int:
    if WHOLE_NUMBER.fullmatch(text) is None:
        raise Invalid(column, f"{text[:40]!r} is no whole number")
    return int(text)


def _truth(column: str, text: str, _: str) -> bool:
    word = text.lower()
    if word not in TRUE | FALSE:
        raise Invalid(column, f"{text[:40]!r} is neither true nor false")
    return word in TRUE


def _json_object(column: str, text: str, _: str) -> dict[str, Any]:
    def refuse(constant: str) -> float:
        raise ValueError(constant)

    def finite(number: str) -> float:
        value = float(number)
        return value if math.isfinite(value) else refuse(number)

    try:
        value = json.loads(text, parse_constant=refuse, parse_float=finite)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Invalid(column, 'is no JSON, such as {"owner": "ops"}') from error
    if not isinstance(value, dict):
        raise Invalid(column, 'is no JSON object, such as {"owner": "ops"}')
    return value


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a kind of row: the command's name for it, and how its cells are read."""

    field: str
    read: Reading = _text


# Beside these: kind, organization, establishment, area_path, gateway, profile and issue_token, which say where a row belongs.
COLUMNS: Mapping[Kind, Mapping[str, Column]] = {
    Kind.ESTABLISHMENT: {
        "timezone": Column("timezone"),
        "address": Column("address"),
        "latitude": Column("latitude", _number),
        "longitude": Column("longitude", _number),
        "metadata": Column("metadata", _json_object),
    },
    Kind.AREA: {
        "type": Column("type"),
        "floor": Column("floor", _whole_number),
        "metadata": Column("metadata", _json_object),
    },
    Kind.DEVICE: {
        "name": Column("name"),
        "type": Column("device_type"),
        "manufacturer": Column("manufacturer"),
        "model": Column("model"),
        "serial_number": Column("serial_number"),
        "mac_address": Column("mac_address"),
        "ip_address": Column("ip_address"),
        "protocol": Column("protocol"),
        "modbus": Column("modbus", _json_object),
        "enabled": Column("is_enabled", _truth),
        "metadata": Column("metadata", _json_object),
    },
}
PLACING: Mapping[Kind, frozenset[str]] = {
    Kind.ESTABLISHMENT: frozenset({"kind", "organization", "establishment", "name"}),
    Kind.AREA: frozenset({"kind", "organization", "establishment", "area_path", "name"}),
    Kind.DEVICE: frozenset({"kind", "organization", "establishment", "area_path", "gateway", "profile", "issue_token"}),
}
ALL_COLUMNS = (
    "kind",
    "organization",
    "establishment",
    "area_path",
    "name",
    "type",
    "timezone",
    "address",
    "latitude",
    "longitude",
    "floor",
    "manufacturer",
    "model",
    "serial_number",
    "mac_address",
    "ip_address",
    "protocol",
    "modbus",
    "gateway",
    "profile",
    "enabled",
    "metadata",
    "issue_token",
)
# What commands call a column otherwise, for the report.
COLUMN_OF_FIELD: Mapping[str, str] = {
    "device_type": "type",
    "is_enabled": "enabled",
    "organization_id": "organization",
    "establishment_id": "establishment",
    "area_id": "area_path",
    "parent_area_id": "area_path",
    "gateway_id": "gateway",
    "profile_id": "profile",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A row that was read: where it belongs, and the values for a command."""

    line: int
    kind: Kind
    organization: str | None
    establishment: str | None
    path: tuple[str, ...]
    name: str
    gateway: str | None
    profile: str | None
    is_token_wanted: bool
    values: Mapping[str, Any]


def draft_of(row: Row, delimiter: str) -> Draft:
    """What a row says. Raises `Invalid`."""
    for column, text in row.cells.items():
        if "\0" in text:
            raise Invalid(column, "no NUL characters")
    kind = _kind_of(row)
    for column in row.cells:
        if column not in COLUMNS[kind] and column not in PLACING[kind]:
            raise Invalid(column, f"is not for rows of the kind {kind.value}: leave it empty")
    values = {
        known.field: known.read(column, row.cells[column], delimiter)
        for column, known in COLUMNS[kind].items()
        if column in row.cells
    }
    path = path_of(row.cells.get("area_path", ""))
    is_token_wanted = _truth("issue_token", row.cells.get("issue_token", "false"), delimiter)
    return Draft(
        line=row.line,
        kind=kind,
        organization=_organization_of(row),
        establishment=_establishment_of(row, kind),
        path=path,
        name=_name_of(row, kind, path),
        gateway=row.cells.get("gateway"),
        profile=row.cells.get("profile"),
        is_token_wanted=is_token_wanted,
        values=values,
    )


def path_of(text: str) -> tuple[str, ...]:
    r"""The areas that a path names, from outside inwards; `\/` is a slash in a name, `\\` a backslash. Raises `Invalid`."""
    if not text:
        return ()
    steps: list[str] = []
    at = 0
    while True:
        found = PATH_STEP.match(text, at)
        if found is None:
            raise Invalid("area_path", "is no path, such as Tower A/Floor 2")
        step = re.sub(r"\\([/\\])", r"\1", found[1].strip(BLANKS))
        if not step:
            raise Invalid(
                "area_path", "has an empty step: name the areas from outside inwards, such as Tower A/Floor 2"
            )
        steps.append(step)
        if not found[2]:
            return tuple(steps)
        at = found.end()


def path_text(path: tuple[str, ...]) -> str:
    """The cell that `path_of` reads so."""
    return "/".join(step.replace("\\", "\\\\").replace("/", "\\/") for step in path)


def uuid_of(text: str) -> UUID | None:
    """The id that a cell holds; None when it holds a name."""
    try:
        return UUID(text)
    except ValueError:
        return None


def _kind_of(row: Row) -> Kind:
    text = row.cells.get("kind", "")
    try:
        return Kind(text.lower())
    except ValueError as error:
        raise Invalid("kind", f"is establishment, area or device, not {text[:40]!r}") from error


def _organization_of(row: Row) -> str | None:
    """A name, or an id in its canonical form."""
    text = row.cells.get("organization")
    found = None if text is None else uuid_of(text)
    return text if found is None else str(found)


def _establishment_of(row: Row, kind: Kind) -> str | None:
    given, name = row.cells.get("establishment"), row.cells.get("name")
    if kind is not Kind.ESTABLISHMENT:
        if given is None and (kind is Kind.AREA or "area_path" in row.cells):
            raise Invalid("establishment", "say of which establishment it is")
        return given
    if None not in (given, name) and given != name:
        raise Invalid(
            "establishment", "is the name of the establishment itself here: leave it empty, or repeat the name"
        )
    return given or name


def _name_of(row: Row, kind: Kind, path: tuple[str, ...]) -> str:
    name = row.cells.get("name")
    if kind is Kind.AREA:
        if not path:
            raise Invalid("area_path", "is the path of the area itself, such as Tower A/Floor 2")
        if name not in (None, path[-1]):
            raise Invalid("name", "is the last step of area_path: leave it empty, or repeat that")
        return path[-1]
    if kind is Kind.ESTABLISHMENT:
        name = name or row.cells.get("establishment")
    if name is None:
        raise Invalid("name", "is needed")
    return name
