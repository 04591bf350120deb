"""The views of the noun and its rules: names, places, time zones."""

import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, ClassVar
from uuid import UUID

from hse.domain.errors import DomainError, ErrorKind, Invalid
from hse.domain.policy import Reach

AREA_DEPTH_MAX = 10


class AreaInItself(DomainError):
    """An area cannot lie in itself, nor in an area that lies in it."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "areas.cycle"

    def __init__(self, area_id: UUID, parent_area_id: UUID) -> None:
        super().__init__(f"area {parent_area_id} lies in area {area_id}: an area cannot be moved into its own parts")
        self.area_id = str(area_id)
        self.parent_area_id = str(parent_area_id)


class AreasTooDeep(DomainError):
    """Areas nest ten deep at most."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "areas.too-deep"

    def __init__(self) -> None:
        super().__init__(f"areas nest {AREA_DEPTH_MAX} deep at most")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartnerCompany:
    """A company that looks after organisations for the operator."""

    id: UUID
    name: str
    contact_email: str | None
    contact_phone: str | None
    address: str | None
    is_active: bool
    version: int
    created_at: datetime
    updated_at: datetime

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it."""
        return reach.has_owner(self.id, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartnerAnalytics:
    """What a partner company looks after, in numbers."""

    partner_company_id: UUID
    organizations: int
    active_organizations: int
    establishments: int
    devices: int
    enabled_devices: int
    users: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """A customer; without a partner company the operator looks after it."""

    id: UUID
    partner_company_id: UUID | None
    name: str
    industry: str | None
    contact_email: str | None
    contact_phone: str | None
    address: str | None
    is_active: bool
    version: int
    created_at: datetime
    updated_at: datetime

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it."""
        return reach.has_owner(self.partner_company_id, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Establishment:
    """A site: latitude and longitude in degrees (WGS 84), `timezone` an IANA name."""

    id: UUID
    organization_id: UUID
    name: str
    address: str | None
    latitude: float | None
    longitude: float | None
    timezone: str
    is_active: bool
    metadata: Mapping[str, Any]
    version: int
    created_at: datetime
    updated_at: datetime

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it."""
        return reach.has_site(self.organization_id, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """A part of an establishment; parts of it are areas whose parent it is."""

    id: UUID
    organization_id: UUID
    establishment_id: UUID
    parent_area_id: UUID | None
    name: str
    type: str
    floor: int | None
    metadata: Mapping[str, Any]
    version: int
    created_at: datetime
    updated_at: datetime

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it."""
        return reach.has_site(self.organization_id, self.establishment_id)


def check_timezone(name: str) -> None:
    """Raises `Invalid` unless `name` is a zone of the IANA database."""
    if name not in _timezones():
        raise Invalid("timezone", f"{name[:64]!r} is no IANA time zone, such as America/Santiago")


@cache
def _timezones() -> frozenset[str]:
    # Looking them up reads the whole database: some 10 ms.
    return frozenset(zoneinfo.available_timezones())


def check_location(latitude: float | None, longitude: float | None) -> None:
    """Raises `Invalid` unless both are there or neither is."""
    if (latitude is None) != (longitude is None):
        raise Invalid("longitude" if longitude is None else "latitude", "give both latitude and longitude, or neither")
