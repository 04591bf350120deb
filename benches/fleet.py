"""The devices that a load speaks for."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hse.adapters.postgres.engine import transaction
from hse.adapters.postgres.registry import add_devices

ORGANIZATION = "Benches"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Registered devices, in a file as the load generator reads it."""

    path: Path
    num_connections: int
    num_registered: int


def add_fleet(database_url: str, path: Path, name: str, count: int, *, children: int = 0) -> Fleet:
    """Register `count` devices, each with so many children that it speaks for."""
    with transaction(database_url) as connection:
        issued = add_devices(connection, organization=ORGANIZATION, name=name, count=count)
        entries: list[dict[str, Any]] = []
        for one in issued:
            entry: dict[str, Any] = {"device_id": str(one.device_id), "token": one.token, "name": one.name}
            if children:
                born = add_devices(
                    connection,
                    organization=ORGANIZATION,
                    name=f"{one.name} child",
                    count=children,
                    gateway_id=one.device_id,
                )
                entry["children"] = [str(child.device_id) for child in born]
            entries.append(entry)
    path.write_text(json.dumps(entries), encoding="utf-8")
    return Fleet(path=path, num_connections=count, num_registered=count * (1 + children))
