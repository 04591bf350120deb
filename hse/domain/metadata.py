"""What people may attach to a thing: a JSON object that no rule of ours reads."""

import json
from collections.abc import Mapping
from typing import Any

from hse.domain.errors import Invalid

METADATA_BYTES_MAX = 16 * 1024


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Raises `Invalid` for more than 16 KiB of JSON, or a NUL character, which PostgreSQL cannot keep."""
    text = json.dumps(metadata)
    if len(text) > METADATA_BYTES_MAX:
        raise Invalid("metadata", f"{METADATA_BYTES_MAX} bytes of JSON at most")
    if "\\u0000" in text:
        raise Invalid("metadata", "no NUL characters")
