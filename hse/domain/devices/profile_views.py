"""What people see of device profiles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from hse.domain.policy import Reach


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """What all devices of a kind measure, in which units, how often, and how what they say becomes values.

    `points` and `format` have every field there (`hse.domain.devices.profile_formats`); a device that says nothing for
    `expected_interval_s` seconds is late, and with None nobody waits for it.
    """

    id: UUID
    organization_id: UUID
    name: str
    description: str | None
    expected_interval_s: int | None
    points: Sequence[Mapping[str, Any]]
    format: Mapping[str, Any]
    version: int
    created_at: datetime
    updated_at: datetime

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it: that of everybody who belongs to the organisation, as with its roles."""
        return reach.has_owner(None, self.organization_id)
