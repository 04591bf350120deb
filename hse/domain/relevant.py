"""What happened at a device and the control plane must act on. Handlers of any noun are given it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class RelevantEvent:
    """An event that waits in the outbox. `id` rises in the order of storing; `attempts` says how often handling it failed."""

    id: int
    time: datetime
    device_id: UUID
    event_type: str
    value: float | None = None
    unit: str | None = None
    # Empty where the device sent none.
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    attempts: int = 0
