"""Guests: who they are, who accompanies them, and who may know that.

Everything of a guest is personal but his id, his place, his language and the first letters of his names. Who may see a guest and
not his personal data is shown the rest masked, cannot search or sort by what he cannot see, and the audit log tells nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from uuid import UUID

from hse.domain.booking.ports import BookingWork
from hse.domain.booking.views import SEE_PERSONAL_DATA, Companion, Guest, GuestExport, Language
from hse.domain.errors import Forbidden, Invalid, NotFound
from hse.domain.metadata import check_metadata
from hse.domain.paging import PAGE_LIMIT_MAX, Page, PageQuery
from hse.domain.policy import Reach
from hse.domain.work import UNCHANGED, Lists, Record, Unchanged, changes_of, seen, values_of, within_act

V = TypeVar("V")

SEE_GUESTS = "read_guest"
COMPANIONS_MAX = 100
EXPORTED_MAX = 10_000
# What one is to the other, and the other way round.
RELATIONSHIPS: Mapping[str, str] = {
    "spouse": "spouse",
    "partner": "partner",
    "parent": "child",
    "child": "parent",
    "grandparent": "grandchild",
    "grandchild": "grandparent",
    "sibling": "sibling",
    "relative": "relative",
    "guardian": "ward",
    "ward": "guardian",
    "friend": "friend",
    "colleague": "colleague",
    "other": "other",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateGuest:
    """A new guest: registered at an establishment, or of an organisation as a whole."""

    first_name: str
    last_name: str
    organization_id: UUID | None = None
    establishment_id: UUID | None = None
    email: str | None = None
    phone: str | None = None
    document_type: str | None = None
    document_number: str | None = None
    country: str | None = None
    language: Language = "es"
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeGuest:
    """What changes of a guest."""

    first_name: str | Unchanged = UNCHANGED
    last_name: str | Unchanged = UNCHANGED
    email: str | Unchanged | None = UNCHANGED
    phone: str | Unchanged | None = UNCHANGED
    document_type: str | Unchanged | None = UNCHANGED
    document_number: str | Unchanged | None = UNCHANGED
    country: str | Unchanged | None = UNCHANGED
    language: Language | Unchanged = UNCHANGED
    metadata: Mapping[str, Any] | Unchanged = UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCompanion:
    """Who accompanies a guest, and what he is to him."""

    companion_id: UUID
    relationship: str


async def guests(work: BookingWork, query: PageQuery) -> Page[Guest]:
    """A page of the guests. A search finds those only whose personal data the caller may read. Raises `Forbidden`, `Invalid`."""
    return await work.guests.page(work.actor.require(SEE_GUESTS), query)


async def guest(work: BookingWork, guest_id: UUID) -> Guest:
    """One guest. Raises `Forbidden`, `NotFound`."""
    return await seen(work.guests, work.actor.require(SEE_GUESTS), guest_id)


async def companions(work: BookingWork, guest_id: UUID) -> Page[Companion]:
    """Who accompanies a guest, as far as the caller may see them. Raises `Forbidden`, `NotFound`."""
    known = await guest(work, guest_id)
    found = await work.guests.companions(known.id, work.actor.reach(SEE_GUESTS))
    return Page(items=found, next_cursor=None, total=len(found))


async def create_guest(work: BookingWork, command: CreateGuest) -> Guest:
    """Register a guest. Raises `NotFound`, `Forbidden`, `Invalid`."""
    values = values_of(command)
    _check(values, None)
    return await work.guests.add({**values, "organization_id": await _organization_of_new(work, command)})


async def change_guest(work: BookingWork, guest_id: UUID, command: ChangeGuest, *, version: int | None = None) -> Guest:
    """Change a guest. Raises `NotFound`, `Forbidden`, `Invalid`, `Stale`."""
    before = await _acted_on(work, guest_id)
    changes = changes_of(command)
    _check(changes, before)
    return await work.guests.change(before, changes, version=version)


async def add_companion(work: BookingWork, guest_id: UUID, command: AddCompanion) -> Companion:
    """Have two guests accompany each other; done again, it says anew what they are to each other.

    Raises `NotFound`, `Forbidden`, `Invalid`.
    """
    known = await _acted_on(work, guest_id)
    if command.relationship not in RELATIONSHIPS:
        raise Invalid("relationship", f"one of {', '.join(RELATIONSHIPS)}")
    companion = await work.guests.find(command.companion_id, work.actor.reach("update_guest"))
    if companion is None or companion.organization_id != known.organization_id or companion.id == known.id:
        raise Invalid("companion_id", "is no other guest of this organisation whom you may change")
    if companion.erased_at is not None:
        raise Invalid("companion_id", "was erased")
    if len(await work.guests.companions(known.id, work.actor.reach(SEE_GUESTS))) >= COMPANIONS_MAX:
        raise Invalid("companion_id", f"a guest has {COMPANIONS_MAX} companions at most")
    return await work.guests.join(known, companion, command.relationship, RELATIONSHIPS[command.relationship])


async def remove_companion(work: BookingWork, guest_id: UUID, companion_id: UUID) -> None:
    """Have two guests not accompany each other any more. Raises `NotFound`, `Forbidden`."""
    known = await _acted_on(work, guest_id)
    if not await work.guests.part(known, companion_id):
        raise NotFound("companion", companion_id)


async def export_guest(work: BookingWork, guest_id: UUID) -> GuestExport:
    """All that is kept of a guest, for him to be given. Raises `NotFound`, `Forbidden`."""
    known = await guest(work, guest_id)
    if known.is_masked:
        raise Forbidden(SEE_PERSONAL_DATA)
    reach = work.actor.reach("read_booking")
    exported = GuestExport(
        guest=known,
        companions=await work.guests.companions(known.id, work.actor.reach(SEE_GUESTS)),
        bookings=await _all_of(known, work.bookings, reach),
        notifications=await _all_of(known, work.booking_notifications, reach),
    )
    await work.record(_record("guest.export", known))
    return exported


async def erase_guest(work: BookingWork, guest_id: UUID) -> Guest:
    """Erase all that is personal of a guest, for good; done again, it is the same. His bookings stay, without what he asked for.

    It takes the permission where he was registered. Raises `NotFound`, `Forbidden`, `GuestStillExpected`.
    """
    before = await within_act(work, work.guests, guest_id, see=SEE_GUESTS, act="erase_guest")
    return before if before.erased_at is not None else await work.guests.erase(before, work.now)


async def _all_of(guest: Guest, kept: Lists[V], reach: Reach) -> list[V]:
    """Whatever is kept of the guest within the reach; of very much, the first."""
    query = PageQuery(limit=PAGE_LIMIT_MAX, filters={"guest_id": guest.id})
    page = await kept.page(reach, query)
    found = page.items
    while page.next_cursor is not None and len(found) < EXPORTED_MAX:
        page = await kept.page(reach, replace(query, cursor=page.next_cursor))
        found += page.items
    return found


async def _acted_on(work: BookingWork, guest_id: UUID) -> Guest:
    """The guest, whom the actor may change: where he was registered, or where he has a booking. Raises `NotFound`, `Forbidden`."""
    await seen(work.guests, work.actor.reach(SEE_GUESTS), guest_id)
    found = await work.guests.find(guest_id, work.actor.reach("update_guest"))
    if found is None:
        raise Forbidden("update_guest")
    if found.erased_at is not None:
        raise Invalid("guest_id", "is a guest who was erased: register him anew")
    return found


async def _organization_of_new(work: BookingWork, command: CreateGuest) -> UUID:
    if command.establishment_id is not None:
        establishment = await within_act(
            work, work.establishments, command.establishment_id, see="read_establishment", act="create_guest"
        )
        if command.organization_id not in (None, establishment.organization_id):
            raise Invalid("organization_id", "is not the organisation of this establishment: leave it out")
        return establishment.organization_id
    if command.organization_id is None:
        raise Invalid("establishment_id", "say where the guest is registered, or whose he is with organization_id")
    organization = await seen(work.organizations, work.actor.reach("read_organization"), command.organization_id)
    if not work.actor.reach("create_guest").has_site(organization.id, None):
        raise Forbidden("create_guest")
    return organization.id


def _check(values: Mapping[str, Any], before: Guest | None) -> None:
    if "metadata" in values:
        check_metadata(values["metadata"])
    document = [values.get(name, getattr(before, name, None)) for name in ("document_type", "document_number")]
    # What is masked is not known here; the database sees to it then.
    if (before is None or not before.is_masked) and (document[0] is None) != (document[1] is None):
        raise Invalid("document_number", "give both document_type and document_number, or neither")


def _record(action: str, known: Guest) -> Record:
    return Record(
        action=action,
        entity_type="guest",
        entity_id=str(known.id),
        organization_id=known.organization_id,
        establishment_id=known.establishment_id,
    )
