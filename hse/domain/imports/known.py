"""What a row can name: everything that the table refers to, by natural key, as the rows before left it."""

from collections.abc import Iterable
from uuid import UUID

from hse.domain.devices.model import Device
from hse.domain.devices.profile_views import DeviceProfile
from hse.domain.organizations.model import Area, Establishment, Organization

Named = Organization | Establishment | Area | DeviceProfile | Device
Key = tuple[object, ...]


class Known:
    """Things by their natural keys; a device has several, and several may share one."""

    def __init__(self) -> None:
        self._by_key: dict[Key, dict[UUID, Named]] = {}
        self._keys: dict[UUID, list[Key]] = {}
        self._paths: dict[UUID, tuple[str, ...]] = {}

    def put_organization(self, organization: Organization) -> None:
        """Know an organisation by its name and its id."""
        self._put(organization, [("organization", organization.name), ("organization", str(organization.id))])

    def put_establishment(self, establishment: Establishment) -> None:
        """Know an establishment by the name that it has in its organisation."""
        self._put(establishment, [("establishment", establishment.organization_id, establishment.name)])

    def put_area(self, area: Area) -> None:
        """Know an area by its path in the establishment; the area that it lies in is known."""
        around = () if area.parent_area_id is None else self._paths[area.parent_area_id]
        self._paths[area.id] = (*around, area.name)
        self._put(area, [("area", area.establishment_id, self._paths[area.id])])

    def put_areas(self, areas: Iterable[Area]) -> None:
        """Know areas whose parents are among them, in any order; parts of what is not there stay unknown."""
        parts: dict[UUID | None, list[Area]] = {}
        for area in areas:
            parts.setdefault(area.parent_area_id, []).append(area)
        waiting = parts.get(None, [])
        while waiting:
            area = waiting.pop()
            self.put_area(area)
            waiting.extend(parts.get(area.id, []))

    def put_profile(self, profile: DeviceProfile) -> None:
        """Know a device profile by the name that it has in its organisation."""
        self._put(profile, [("profile", profile.organization_id, profile.name)])

    def put_device(self, device: Device) -> None:
        """Know a device by its serial number, by its place and name, and, when it may be a gateway, by its name alone."""
        owner = device.organization_id
        keys: list[Key] = [("device", owner, device.establishment_id, device.area_id, device.name)]
        if device.serial_number is not None:
            keys.append(("serial", owner, device.serial_number))
        if device.gateway_id is None:
            keys.append(("gateway", owner, device.name))
        self._put(device, keys)

    def forget(self, thing_id: UUID) -> None:
        """Do not know it any more."""
        for key in self._keys.pop(thing_id, []):
            del self._by_key[key][thing_id]

    def organizations(self, name: str) -> list[Organization]:
        """Those of this name or id."""
        return [one for one in self._found("organization", name) if isinstance(one, Organization)]

    def establishment(self, organization_id: UUID, name: str) -> Establishment | None:
        """The one of this name."""
        found = self._found("establishment", organization_id, name)
        return next((one for one in found if isinstance(one, Establishment)), None)

    def area(self, establishment_id: UUID, path: tuple[str, ...]) -> Area | None:
        """The one at this path."""
        return next((one for one in self._found("area", establishment_id, path) if isinstance(one, Area)), None)

    def profile(self, organization_id: UUID, name: str) -> DeviceProfile | None:
        """The one of this name."""
        found = self._found("profile", organization_id, name)
        return next((one for one in found if isinstance(one, DeviceProfile)), None)

    def devices(self, *key: object) -> list[Device]:
        """Those of a key: ("serial", organisation, number), ("gateway", organisation, name), or ("device", ...) with the place."""
        return [one for one in self._found(*key) if isinstance(one, Device)]

    def _found(self, *key: object) -> list[Named]:
        return list(self._by_key.get(key, {}).values())

    def _put(self, thing: Named, keys: list[Key]) -> None:
        self.forget(thing.id)
        self._keys[thing.id] = keys
        for key in keys:
            self._by_key.setdefault(key, {})[thing.id] = thing
