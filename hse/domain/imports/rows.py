"""One row becomes commands: what it names is found or made, by the commands and under the permissions of single requests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hse.domain.devices import commands as devices
from hse.domain.devices.model import Device
from hse.domain.errors import DomainError, Invalid, NotFound
from hse.domain.imports.cells import Draft, path_text
from hse.domain.imports.known import Known
from hse.domain.imports.model import Ambiguous, DuplicateRow, Kind, Outcome, ParentFailed
from hse.domain.imports.ports import Forms, ImportWork
from hse.domain.organizations import commands as organizations
from hse.domain.organizations.model import Area, Establishment


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a row did."""

    outcome: Outcome
    id: UUID
    token: str | None = field(default=None, repr=False)


@dataclass(slots=True, kw_only=True)
class Run:
    """One import on its way."""

    work: ImportWork
    forms: Forms
    known: Known = field(default_factory=Known)
    # Which row described a thing.
    described: dict[UUID, int] = field(default_factory=dict)
    # Which row was to describe what a later one may hang on, and failed.
    failed: dict[tuple[object, ...], int] = field(default_factory=dict)
    # The same of rows that could not be read, by what their cells seem to name.
    unread: dict[tuple[str, str], int] = field(default_factory=dict)

    def describe(self, thing_id: UUID, line: int) -> None:
        """Note that this row describes the thing. Raises `DuplicateRow` when another one does."""
        other = self.described.setdefault(thing_id, line)
        if other != line:
            raise DuplicateRow(other)

    def fail_unread(self, cells: Mapping[str, str], line: int) -> None:
        """Note that a row could not be read, for those that seem to hang on it."""
        entity = cells.get("kind", "").lower()
        named = {cells.get("area_path")} if entity == "area" else {cells.get("name"), cells.get("establishment")}
        if entity == "device":
            entity, named = "gateway", {cells.get("name"), cells.get("serial_number")}
        for name in named - {None}:
            self.unread.setdefault((entity, str(name)), line)

    def fail(self, draft: Draft, organization_id: UUID) -> None:
        """Note that a row failed, for those that hang on it."""
        owner = (organization_id, draft.establishment)
        match draft.kind:
            case Kind.ESTABLISHMENT:
                self.failed.setdefault(("establishment", *owner), draft.line)
            case Kind.AREA:
                self.failed.setdefault(("area", *owner, draft.path), draft.line)
            case Kind.DEVICE:
                for name in {draft.name, draft.values.get("serial_number")}:
                    self.failed.setdefault(("gateway", organization_id, name), draft.line)

    def missing(self, entity: str, shown: str, *key: object) -> DomainError:
        """Why what a row hangs on is not there."""
        line = self.failed.get((entity, *key), self.unread.get((entity, shown)))
        return NotFound(entity, shown) if line is None else ParentFailed(entity, line)


def organization_of(run: Run, draft: Draft) -> UUID:
    """Whose the row is: the organisation that it names, else the actor's own. Raises `NotFound`, `Ambiguous`, `Invalid`."""
    own = run.work.actor.organization_id
    if draft.organization is None:
        if own is None:
            raise Invalid("organization", "say whose it is, by name or id")
        return own
    if own is not None and draft.organization == str(own):
        return own
    found = run.known.organizations(draft.organization)
    if len(found) > 1:
        raise Ambiguous("organization", draft.organization, "id")
    if not found:
        raise NotFound("organization", draft.organization)
    return found[0].id


async def do_row(run: Run, draft: Draft, organization_id: UUID) -> Done:
    """Do what a row says. Raises what the commands raise, `DuplicateRow`, `Ambiguous`, `ParentFailed`."""
    match draft.kind:
        case Kind.ESTABLISHMENT:
            return await _do_establishment(run, draft, organization_id)
        case Kind.AREA:
            return await _do_area(run, draft, organization_id)
        case Kind.DEVICE:
            return await _do_device(run, draft, organization_id)


async def _do_establishment(run: Run, draft: Draft, organization_id: UUID) -> Done:
    values = dict(draft.values)
    before = run.known.establishment(organization_id, draft.name)
    if before is None:
        values |= {"organization_id": organization_id, "name": draft.name}
        after = await organizations.create_establishment(
            run.work, run.forms.filled(organizations.CreateEstablishment, values)
        )
    else:
        run.describe(before.id, draft.line)
        change = run.forms.filled(organizations.ChangeEstablishment, values)
        after = await organizations.change_establishment(run.work, before.id, change)
    run.describe(after.id, draft.line)
    run.known.put_establishment(after)
    return Done(outcome=_outcome(before, after), id=after.id)


async def _do_area(run: Run, draft: Draft, organization_id: UUID) -> Done:
    values = dict(draft.values)
    establishment = _establishment(run, draft, organization_id)
    before = run.known.area(establishment.id, draft.path)
    if before is None:
        around = None if len(draft.path) == 1 else _area(run, draft, establishment, draft.path[:-1])
        values |= {"establishment_id": establishment.id, "name": draft.name}
        values["parent_area_id"] = None if around is None else around.id
        after = await organizations.create_area(run.work, run.forms.filled(organizations.CreateArea, values))
    else:
        run.describe(before.id, draft.line)
        change = run.forms.filled(organizations.ChangeArea, values)
        after = await organizations.change_area(run.work, before.id, change)
    run.describe(after.id, draft.line)
    run.known.put_area(after)
    return Done(outcome=_outcome(before, after), id=after.id)


async def _do_device(run: Run, draft: Draft, organization_id: UUID) -> Done:
    establishment = None if draft.establishment is None else _establishment(run, draft, organization_id)
    area = None if establishment is None or not draft.path else _area(run, draft, establishment, draft.path)
    values = dict(draft.values)
    if draft.gateway is not None:
        values["gateway_id"] = _gateway(run, draft, organization_id, establishment)
    if draft.profile is not None:
        values["profile_id"] = _profile(run, draft.profile, organization_id)
    place = {"establishment_id": None if establishment is None else establishment.id, "area_id": area and area.id}
    before = _device(run, draft, organization_id, place)
    if before is None:
        owner = organization_id if establishment is None else None
        values |= {**place, "organization_id": owner}
        after = await devices.create_device(run.work, run.forms.filled(devices.CreateDevice, values))
    else:
        run.describe(before.id, draft.line)
        values |= {name: value for name, value in place.items() if value is not None}
        after = await devices.change_device(run.work, before.id, run.forms.filled(devices.ChangeDevice, values))
    run.describe(after.id, draft.line)
    token = None
    if draft.is_token_wanted and not after.has_token:
        token = (await devices.issue_token(run.work, after.id)).token
        after = await run.work.devices.find(after.id, run.work.actor.reach("read_device")) or after
    run.known.put_device(after)
    return Done(outcome=_outcome(before, after), id=after.id, token=token)


def _outcome(before: Establishment | Area | Device | None, after: Establishment | Area | Device) -> Outcome:
    if before is None:
        return Outcome.CREATED
    return Outcome.UNCHANGED if before.version == after.version else Outcome.UPDATED


def _establishment(run: Run, draft: Draft, organization_id: UUID) -> Establishment:
    name = draft.establishment or ""
    found = run.known.establishment(organization_id, name)
    if found is None:
        raise run.missing("establishment", name, organization_id, name)
    return found


def _area(run: Run, draft: Draft, establishment: Establishment, path: tuple[str, ...]) -> Area:
    found = run.known.area(establishment.id, path)
    if found is None:
        key = (establishment.organization_id, draft.establishment, path)
        raise run.missing("area", path_text(path), *key)
    return found


def _device(run: Run, draft: Draft, organization_id: UUID, place: Mapping[str, Any]) -> Device | None:
    """The device that a row describes: by its serial number when it names one, else by its place and name."""
    if (serial_number := draft.values.get("serial_number")) is not None:
        found = run.known.devices("serial", organization_id, serial_number)
    else:
        found = run.known.devices("device", organization_id, *place.values(), draft.name)
    if len(found) > 1:
        raise Ambiguous("device", draft.name, "serial number")
    return found[0] if found else None


def _profile(run: Run, name: str, organization_id: UUID) -> UUID:
    found = run.known.profile(organization_id, name)
    if found is None:
        raise NotFound("device profile", name)
    return found.id


def _gateway(run: Run, draft: Draft, organization_id: UUID, establishment: Establishment | None) -> UUID:
    """By its serial number, else by its name: that of one at the same establishment before that of another."""
    name = draft.gateway or ""
    if found := run.known.devices("serial", organization_id, name):
        return found[0].id
    found = run.known.devices("gateway", organization_id, name)
    here = [one for one in found if establishment is not None and one.establishment_id == establishment.id]
    if len(here or found) > 1:
        raise Ambiguous("gateway", name, "serial number")
    if not found:
        raise run.missing("gateway", name, organization_id, name)
    return (here or found)[0].id
