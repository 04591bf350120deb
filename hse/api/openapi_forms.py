"""Schemas as people read them: without the framework's detours, and with an example for every body."""

import re
from typing import Any

import msgspec

Schema = dict[str, Any]

PAGE_NAME = re.compile(r"Page_(?:[a-z_]+\.)*([A-Za-z]+)_")
EXAMPLE_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
# Of fields whose type cannot carry one.
EXAMPLES: dict[str, Any] = {"actions": ["read_device"]}
NESTING_MAX = 8


def tidy(node: Any) -> Any:
    """The same document: unions of one are what is in them, parameters are never null, pages have short names."""
    if isinstance(node, list):
        return [tidy(item) for item in node]
    if isinstance(node, str):
        return PAGE_NAME.sub(r"PageOf\1", node) if "Page_" in node else node
    if not isinstance(node, dict):
        return node
    tidied = {PAGE_NAME.sub(r"PageOf\1", name): tidy(value) for name, value in node.items()}
    if tidied.get("deprecated") is False:
        del tidied["deprecated"]
    if "in" in tidied and "schema" in tidied:
        tidied["schema"] = _without_null(tidied["schema"])
        tidied["schema"].pop("description", None)
    return _flat(tidied)


def complete_body(schema: Schema, body: type[msgspec.Struct]) -> None:
    """Add what the framework does not see: that unknown fields are refused, what the items of a list must be, limits of 0."""
    # Unknown fields are refused, so that a misspelt one is not silently left out.
    schema["additionalProperties"] = False
    exact = msgspec.json.schema(body)["$defs"][body.__name__]["properties"]
    for name, shown in schema.get("properties", {}).items():
        if shown.get("items") == {"type": "string"}:
            shown["items"] = {**exact[name]["items"]}
        if any(one.get("minimum") == 0 for one in (exact[name], *exact[name].get("anyOf", ()))):
            shown.setdefault("minimum", 0)


def add_examples(document: Schema) -> None:
    """Give every body of a request an example that has the form of the operation."""
    schemas = document["components"]["schemas"]
    for item in document["paths"].values():
        for operation in item.values():
            for media_type in operation.get("requestBody", {}).get("content", {}).values():
                media_type.setdefault("example", example_of(media_type.get("schema", {}), schemas))


def example_of(schema: Schema, schemas: Schema, depth: int = 0) -> Any:
    """A value that fits the schema: the first example that it gives, else the plainest there is."""
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rsplit("/", 1)[-1]], schemas, depth)
    for name in ("examples", "enum"):
        if schema.get(name):
            return schema[name][0]
    for union in ("oneOf", "anyOf"):
        if union in schema:
            return example_of(schema[union][0], schemas, depth)
    kind = schema.get("type")
    if kind == "object":
        properties = schema.get("properties", {}) if depth < NESTING_MAX else {}
        return {name: EXAMPLES.get(name) or example_of(one, schemas, depth + 1) for name, one in properties.items()}
    if kind == "array":
        return [example_of(schema.get("items", {}), schemas, depth + 1)]
    if kind == "string":
        return {"uuid": EXAMPLE_ID, "date-time": "2038-01-01T00:00:00Z"}.get(schema.get("format", ""), "text")
    return {"boolean": True, "integer": schema.get("minimum", 1), "number": schema.get("minimum", 1.0)}.get(str(kind))


def _without_null(schema: Schema) -> Schema:
    """A parameter that is there is no null; one that may be left out says so by `required`."""
    kept = dict(schema)
    for union in ("oneOf", "anyOf"):
        if union in kept:
            kept[union] = [one for one in kept[union] if one != {"type": "null"}]
    return _flat(kept)


def _flat(schema: Schema) -> Schema:
    """A union of one alternative is that alternative."""
    for union in ("oneOf", "anyOf"):
        alternatives = schema.get(union)
        if isinstance(alternatives, list) and len(alternatives) == 1 and isinstance(alternatives[0], dict):
            rest = {name: value for name, value in schema.items() if name != union}
            return {**alternatives[0], **rest}
    return schema
