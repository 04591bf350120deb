"""Guests, who accompanies them, and what is kept of them."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, delete, get, patch, post, put
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter, SkipValidation
from msgspec import UNSET, UnsetType

from hse.api.acting import Acts, Version
from hse.api.bodies import LINE, Body, Email, Metadata, PersonName, given
from hse.api.paging import Paged, filtered
from hse.domain.booking import guests
from hse.domain.booking.views import Companion, Guest, GuestExport, Language
from hse.domain.paging import Page

PhoneNumber = Annotated[str, msgspec.Meta(min_length=1, max_length=50, pattern=LINE, examples=["+56 2 2345 6789"])]
DocumentType = Annotated[str, msgspec.Meta(min_length=1, max_length=50, pattern=LINE, examples=["passport"])]
DocumentNumber = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=LINE, examples=["P1234567"])]
Country = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}$(?!\n)", examples=["CL"])]
Relationship = Annotated[str, msgspec.Meta(min_length=1, max_length=50, pattern=LINE, examples=["spouse"])]
OfEmail = Annotated[str | None, QueryParameter(name="email", description="With exactly this address.", max_length=254)]
OfDocument = Annotated[
    str | None, QueryParameter(name="document_number", description="With exactly this document.", max_length=100)
]


class NewGuest(Body):
    """A guest to be registered: at an establishment, or of an organisation as a whole."""

    first_name: PersonName
    last_name: PersonName
    organization_id: UUID | None = None
    establishment_id: UUID | None = None
    email: Email | None = None
    phone: PhoneNumber | None = None
    document_type: DocumentType | None = None
    document_number: DocumentNumber | None = None
    country: Country | None = None
    language: Language = "es"
    metadata: Metadata = msgspec.field(default_factory=dict)


class GuestChange(Body):
    """What changes of a guest."""

    first_name: PersonName | UnsetType = UNSET
    last_name: PersonName | UnsetType = UNSET
    email: Email | UnsetType | None = UNSET
    phone: PhoneNumber | UnsetType | None = UNSET
    document_type: DocumentType | UnsetType | None = UNSET
    document_number: DocumentNumber | UnsetType | None = UNSET
    country: Country | UnsetType | None = UNSET
    language: Language | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET


class NewCompanion(Body):
    """What a companion is to a guest: spouse, partner, parent, child, sibling, friend, ..."""

    relationship: Relationship


async def provide_filters(
    organization_id: FromQuery[UUID | None] = None,
    establishment_id: FromQuery[UUID | None] = None,
    email: OfEmail = None,
    document_number: OfDocument = None,
) -> dict[str, Any]:
    """Which guests a list is to show."""
    place = {"organization_id": organization_id, "establishment_id": establishment_id}
    return {**place, "email": email, "document_number": document_number}


@get("/guests", dependencies={"filters": Provide(provide_filters)})
async def list_guests(
    acting: Acts, page: Paged, filters: NamedDependency[SkipValidation[dict[str, Any]]]
) -> Page[Guest]:
    """List the guests that you may see; `q` looks in names, e-mail address, phone and document.

    A search, a filter or an order by personal data shows those guests only whose personal data you may read.
    """
    return await acting.read(lambda work: guests.guests(work, filtered(page, **filters)))


@post("/guests")
async def create_guest(once: Acts, data: JSONBody[NewGuest]) -> Guest:
    """Register a guest."""
    command = guests.CreateGuest(**given(data))
    return await once.run(lambda work: guests.create_guest(work, command), status=201)


@get("/guests/{guest_id:uuid}")
async def get_guest(acting: Acts, guest_id: FromPath[UUID]) -> Guest:
    """Read a guest. Without the permission for personal data he is masked: the first letters of his names, and no more."""
    return await acting.read(lambda work: guests.guest(work, guest_id))


@patch("/guests/{guest_id:uuid}")
async def change_guest(acting: Acts, guest_id: FromPath[UUID], data: JSONBody[GuestChange], version: Version) -> Guest:
    """Change a guest."""
    command = guests.ChangeGuest(**given(data))
    return await acting.run(lambda work: guests.change_guest(work, guest_id, command, version=version))


@get("/guests/{guest_id:uuid}/companions")
async def list_companions(acting: Acts, guest_id: FromPath[UUID]) -> Page[Companion]:
    """List who accompanies a guest, as far as you may see them."""
    return await acting.read(lambda work: guests.companions(work, guest_id))


@put("/guests/{guest_id:uuid}/companions/{companion_id:uuid}")
async def add_companion(
    acting: Acts, guest_id: FromPath[UUID], companion_id: FromPath[UUID], data: JSONBody[NewCompanion]
) -> Companion:
    """Have two guests accompany each other, or say anew what they are to each other; it counts in both directions."""
    command = guests.AddCompanion(companion_id=companion_id, relationship=data.relationship)
    return await acting.run(lambda work: guests.add_companion(work, guest_id, command))


@delete("/guests/{guest_id:uuid}/companions/{companion_id:uuid}")
async def remove_companion(acting: Acts, guest_id: FromPath[UUID], companion_id: FromPath[UUID]) -> None:
    """Have two guests not accompany each other any more."""
    await acting.run(lambda work: guests.remove_companion(work, guest_id, companion_id))


@post("/guests/{guest_id:uuid}/export", status_code=200)
async def export_guest(acting: Acts, guest_id: FromPath[UUID]) -> GuestExport:
    """Read all that is kept of a guest, for him to be given. That it was read is written to the audit log."""
    return await acting.run(lambda work: guests.export_guest(work, guest_id))


@post("/guests/{guest_id:uuid}/erase", status_code=200, opt={"refusals": (412,)})
async def erase_guest(acting: Acts, guest_id: FromPath[UUID]) -> Guest:
    """Erase all that is personal of a guest, for good, once he has no stay before him. His bookings stay, without his requests."""
    return await acting.run(lambda work: guests.erase_guest(work, guest_id))


router = Router(
    path="/",
    tags=["guests"],
    route_handlers=[
        list_guests,
        create_guest,
        get_guest,
        change_guest,
        list_companions,
        add_companion,
        remove_companion,
        export_guest,
        erase_guest,
    ],
)
