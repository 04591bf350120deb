"""What people may attach to a thing: a JSON object that no rule of ours reads."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from hse.domain.errors import Invalid

METADATA_BYTES_MAX = 16 * 1024
METADATA_DEPTH_MAX = 32


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Raises `Invalid` for more than 16 KiB of JSON or 32 levels of it, or a NUL character, which PostgreSQL cannot keep."""
    if is_deeper_than(METADATA_DEPTH_MAX, metadata):
        raise Invalid("metadata", f"nests {METADATA_DEPTH_MAX} levels deep at most")
    text = json.dumps(metadata)
    if len(text) > METADATA_BYTES_MAX:
        raise Invalid("metadata", f"{METADATA_BYTES_MAX} bytes of JSON at most")
    if "\\u0000" in text:
        raise Invalid("metadata", "no NUL characters")


def is_deeper_than(depth_max: int, value: object) -> bool:
    """Whether JSON nests deeper: `1` does not nest, `[]` and `{"a": 1}` are one level, `[[]]` is two. It does not recurse."""
    level: list[object] = [value]
    for _ in range(depth_max):
        level = [inner for one in level for inner in _within(one)]
        if not level:
            return False
    return any(isinstance(one, Mapping | list) for one in level)


def _within(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list) else ()
