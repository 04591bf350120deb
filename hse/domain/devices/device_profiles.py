"""What may be done with device profiles. What one may say is in `profile_formats`.

A profile is read by who belongs to its organisation, and written by who reaches the organisation as a whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final
from uuid import UUID

from hse.domain.devices.model import checked_name
from hse.domain.devices.ports import SEE_PROFILES, DevicesWork
from hse.domain.devices.profile_formats import checked_definition
from hse.domain.devices.profile_views import DeviceProfile
from hse.domain.errors import Forbidden, InUse, Invalid
from hse.domain.paging import Page, PageQuery
from hse.domain.work import UNCHANGED, Unchanged, changes_of, seen, values_of

MANAGE_PROFILES: Final = "manage_device_profile"
DESCRIPTION_CHARS_MAX: Final = 2000
# What is checked together, because the format names the points; in the order in which that is asked.
DEFINITION: Final = ("points", "format", "expected_interval_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateDeviceProfile:
    """A new profile of an organisation."""

    organization_id: UUID
    name: str
    description: str | None = None
    expected_interval_s: int | None = None
    points: Sequence[Mapping[str, Any]] = ()
    format: Mapping[str, Any] = field(default_factory=lambda: {"kind": "hdp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeDeviceProfile:
    """What changes of a profile; `points` and `format` are replaced as a whole, and must fit together afterwards."""

    name: str | Unchanged = UNCHANGED
    description: str | Unchanged | None = UNCHANGED
    expected_interval_s: int | Unchanged | None = UNCHANGED
    points: Sequence[Mapping[str, Any]] | Unchanged = UNCHANGED
    format: Mapping[str, Any] | Unchanged = UNCHANGED


async def device_profiles(work: DevicesWork, query: PageQuery) -> Page[DeviceProfile]:
    """A page of the profiles. Raises `Forbidden`, `Invalid`."""
    return await work.device_profiles.page(work.actor.require(SEE_PROFILES), query)


async def device_profile(work: DevicesWork, profile_id: UUID) -> DeviceProfile:
    """One profile. Raises `Forbidden`, `NotFound`."""
    return await seen(work.device_profiles, work.actor.require(SEE_PROFILES), profile_id)


async def create_device_profile(work: DevicesWork, command: CreateDeviceProfile) -> DeviceProfile:
    """Describe a kind of device. Raises `NotFound`, `Forbidden`, `Invalid`, `InvalidDeviceName`, `Taken`."""
    owner = await seen(work.organizations, work.actor.reach("read_organization"), command.organization_id)
    _check_manages(work, owner.id)
    values = values_of(command)
    _check_words(values)
    kept = checked_definition(command.points, command.format, command.expected_interval_s)
    return await work.device_profiles.add({**values, **asdict(kept)})


async def change_device_profile(
    work: DevicesWork, profile_id: UUID, command: ChangeDeviceProfile, *, version: int | None = None
) -> DeviceProfile:
    """Change a profile: for all its devices, from their next word on.

    Raises `NotFound`, `Forbidden`, `Invalid`, `InvalidDeviceName`, `Taken`, `Stale`.
    """
    before = await _managed(work, profile_id)
    changes = changes_of(command)
    _check_words(changes)
    if changes.keys() & DEFINITION:
        wanted = [changes.get(name, getattr(before, name)) for name in DEFINITION]
        changes |= asdict(checked_definition(*wanted))
    return await work.device_profiles.change(before, changes, version=version)


async def delete_device_profile(work: DevicesWork, profile_id: UUID) -> None:
    """Delete a profile that no device has. Raises `NotFound`, `Forbidden`, `InUse`."""
    before = await _managed(work, profile_id)
    if (count := await work.device_profiles.num_devices(before.id)) > 0:
        raise InUse(work.device_profiles.entity, f"{count} device{'' if count == 1 else 's'}")
    await work.device_profiles.remove(before)


async def check_profile(work: DevicesWork, organization_id: UUID, profile_id: UUID | None) -> None:
    """Raises `Invalid` unless it is a profile of this organisation that the actor may see: one answer for both."""
    if profile_id is None:
        return
    profile = await work.device_profiles.find(profile_id, work.actor.reach(SEE_PROFILES))
    if profile is None or profile.organization_id != organization_id:
        raise Invalid("profile_id", "is no device profile of this organisation")


async def _managed(work: DevicesWork, profile_id: UUID) -> DeviceProfile:
    found = await seen(work.device_profiles, work.actor.reach(SEE_PROFILES), profile_id)
    _check_manages(work, found.organization_id)
    return found


def _check_manages(work: DevicesWork, organization_id: UUID) -> None:
    if not work.actor.reach(MANAGE_PROFILES).has_site(organization_id, None):
        raise Forbidden(MANAGE_PROFILES)


def _check_words(values: Mapping[str, Any]) -> None:
    if "name" in values:
        checked_name(values["name"])
    description = values.get("description")
    if description is not None and (len(description) > DESCRIPTION_CHARS_MAX or "\0" in description):
        raise Invalid("description", f"has {DESCRIPTION_CHARS_MAX} characters at most, and no NUL among them")
