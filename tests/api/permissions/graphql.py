"""One valid operation for every GraphQL field that leads to a thing or does something.

A field of the query or of a mutation means what one operation of REST means, and is given what the recipe of that one gives. What
is shown inside another thing is got at through that thing, and must be what REST answers to who asks for it by itself.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from graphql import GraphQLObjectType, get_named_type
from strawberry.utils.str_converters import to_camel_case

from hse.api.graphql.schema import schema
from tests.api.permissions.actors import Place
from tests.api.permissions.rest import A_DAY, RECIPES, Call, Recipe
from tests.api.permissions.twins import TWINS

SCHEMA = schema._schema
# What may be asked beside the fields that the schema lists; REST's document is open to everybody.
INTROSPECTION = {
    "Query.__schema": "{ __schema { queryType { name } } }",
    "Query.__type": '{ __type(name: "User") { name } }',
}
# Parts of a list, not things.
PARTS_OF_LISTS = ("Connection", "Edge", "PageInfo")
# What is shown whole or not at all.
WHOLES = {"DeviceState", "SeriesSet", "AreaAvailability", "AreaNights", "GuestExport"}


def _devices(place: Place) -> Call:
    return Call(params={"device_ids": [place.site.device_id]})


def _series(place: Place) -> Call:
    day = {"since": A_DAY["from"], "until": A_DAY["to"]}
    return Call(params={"asked": {"device_ids": [place.site.device_id], "types": ["power"], **day}})


def _free_area(place: Place) -> Call:
    return Call({"id": place.site.area_id}, params={"since": A_DAY["from"], "until": A_DAY["to"]})


def _free_areas(place: Place) -> Call:
    return Call({"id": place.site.id}, params={"since": A_DAY["from"], "until": A_DAY["to"]})


def _companion(place: Place) -> Call:
    return Call({"id": place.guest_id}, params={"companion_id": place.other_guest_id, "relationship": "friend"})


def _known_companion(place: Place) -> Call:
    return Call({"id": place.guest_id}, params={"companion_id": place.companion_id})


# What fields are given whose arguments have other names than REST's parameters.
GIVEN: dict[str, Recipe] = {
    "Query.areaAvailability": _free_area,
    "Query.establishmentAvailability": _free_areas,
    "Mutation.addCompanion": _companion,
    "Mutation.removeCompanion": _known_companion,
    "Query.deviceStates": _devices,
    "Query.latestEvents": _devices,
    "Query.series": _series,
}


@dataclass(frozen=True)
class Way:
    """How one gets at a thing: by which field, and what that one is given."""

    field: str
    given: Recipe


@dataclass(frozen=True)
class Nested:
    """A field of a thing. `alone` is what asks REST for the same by itself; None where nothing is there."""

    parent: Way
    twin: str
    alone: Callable[[Place], Call | None]


def _by_id(field: str, id_of: Callable[[Place], Any]) -> Way:
    return Way(field, lambda place: Call({"id": id_of(place)}))


COMPANY = _by_id("Query.partnerCompany", lambda place: place.partner_company_id)
ORGANIZATION = _by_id("Query.organization", lambda place: place.tenant.id)
ESTABLISHMENT = _by_id("Query.establishment", lambda place: place.site.id)
AREA = _by_id("Query.area", lambda place: place.site.area_id)
PART = _by_id("Query.area", lambda place: place.part_id)
GATEWAY = _by_id("Query.device", lambda place: place.site.device_id)
CHILD = _by_id("Query.device", lambda place: place.child_id)
ATTRIBUTES = _by_id("Query.deviceAttributes", lambda place: place.site.device_id)
PROVISIONING_KEY = _by_id("Query.provisioningKey", lambda place: place.provisioning_key_id)
PROFILE = _by_id("Query.deviceProfile", lambda place: place.profile_id)
WORKER = _by_id("Query.user", lambda place: place.worker.id)
PARTNER = _by_id("Query.user", lambda place: place.partner.id)
ASSIGNMENTS = _by_id("Query.userEstablishments", lambda place: place.worker.id)
SITE_ROLE = _by_id("Query.role", lambda place: place.site_role_id)
COMPANY_ROLE = _by_id("Query.role", lambda place: place.company_role_id)
USER_ROLE = _by_id("Query.role", lambda place: place.world.user_role)
INVITATION = _by_id("Query.invitation", lambda place: place.invitation_id)
COMPANY_INVITATION = _by_id("Query.invitation", lambda place: place.company_invitation_id)
ALARM = _by_id("Query.alarm", lambda place: place.alarm_id)
GUEST = _by_id("Query.guest", lambda place: place.guest_id)
COMPANIONS = _by_id("Query.guestCompanions", lambda place: place.guest_id)
BOOKING = _by_id("Query.booking", lambda place: place.booking_id)
DOOR_CODE = _by_id("Query.doorCode", lambda place: place.door_code_id)
NOTIFICATION = _by_id("Query.bookingNotification", lambda place: place.notification_id)
TEMPLATE = _by_id("Query.notificationTemplate", lambda place: place.template_id)
DOOR_LOCK = _by_id("Query.doorLock", lambda place: place.site.device_id)
HISTORY = _by_id("Query.bookingHistory", lambda place: place.booking_id)
SESSIONS = _by_id("Query.userSessions", lambda place: place.worker.id)
COMMAND = _by_id("Query.deviceCommand", lambda place: place.command_id)
COMMAND_GROUP = _by_id("Query.deviceCommandGroup", lambda place: place.command_group_id)
OF_GROUP = Way("Query.deviceCommands", lambda place: Call(params={"group_id": str(place.command_group_id)}))
API_KEY = _by_id("Query.apiKey", lambda place: place.api_key_id)
ENTRY = Way("Query.auditEntries", lambda place: Call(params={"entity_id": place.audited_id}))


def _one(parent: Way, kind: str, id_of: Callable[[Place], Any]) -> Nested:
    """A field that leads to a thing of this kind with this id."""
    name = {"partner-companies": "partner_company", "device-profiles": "profile"}.get(
        kind, kind.removesuffix("s")
    ) + "_id"
    twin = f"GET /api/v1/{kind}/{{{name}}}"
    return Nested(parent, twin, lambda place: None if (found := id_of(place)) is None else Call({name: found}))


def _those(parent: Way, kind: str, column: str, id_of: Callable[[Place], Any]) -> Nested:
    """A field that lists the things of this kind whose column holds this id."""
    return Nested(parent, f"GET /api/v1/{kind}", lambda place: Call(params={column: str(id_of(place))}))


def _company(parent: Way) -> Nested:
    return _one(parent, "partner-companies", lambda place: place.partner_company_id)


def _organization(parent: Way) -> Nested:
    return _one(parent, "organizations", lambda place: place.tenant.id)


def _establishment(parent: Way) -> Nested:
    return _one(parent, "establishments", lambda place: place.site.id)


def _worker(parent: Way) -> Nested:
    return _one(parent, "users", lambda place: place.worker.id)


NESTED: dict[str, Nested] = {
    "PartnerCompany.organizations": _those(
        COMPANY, "organizations", "partner_company_id", lambda place: place.partner_company_id
    ),
    "PartnerCompany.users": _those(COMPANY, "users", "partner_company_id", lambda place: place.partner_company_id),
    "Organization.partnerCompany": _one(ORGANIZATION, "partner-companies", lambda place: place.looked_after_by),
    "Organization.establishments": _those(
        ORGANIZATION, "establishments", "organization_id", lambda place: place.tenant.id
    ),
    "Organization.devices": _those(ORGANIZATION, "devices", "organization_id", lambda place: place.tenant.id),
    "Organization.users": _those(ORGANIZATION, "users", "organization_id", lambda place: place.tenant.id),
    "Establishment.organization": _organization(ESTABLISHMENT),
    "Establishment.areas": _those(ESTABLISHMENT, "areas", "establishment_id", lambda place: place.site.id),
    "Establishment.devices": _those(ESTABLISHMENT, "devices", "establishment_id", lambda place: place.site.id),
    "Establishment.users": _those(ESTABLISHMENT, "users", "establishment_id", lambda place: place.site.id),
    "Area.organization": _organization(AREA),
    "Area.establishment": _establishment(AREA),
    "Area.parent": _one(PART, "areas", lambda place: place.site.area_id),
    "Area.children": _those(AREA, "areas", "parent_area_id", lambda place: place.site.area_id),
    "Area.devices": _those(PART, "devices", "area_id", lambda place: place.part_id),
    "Device.organization": _organization(CHILD),
    "Device.establishment": _establishment(CHILD),
    "Device.area": _one(CHILD, "areas", lambda place: place.part_id),
    "Device.gateway": _one(CHILD, "devices", lambda place: place.site.device_id),
    "Device.children": _those(GATEWAY, "devices", "gateway_id", lambda place: place.site.device_id),
    "Device.profile": _one(CHILD, "device-profiles", lambda place: place.profile_id),
    "DeviceProfile.organization": _organization(PROFILE),
    "DeviceProfile.devices": _those(PROFILE, "devices", "profile_id", lambda place: place.profile_id),
    "DeviceAttributes.device": _one(ATTRIBUTES, "devices", lambda place: place.site.device_id),
    "ProvisioningKey.organization": _organization(PROVISIONING_KEY),
    "ProvisioningKey.establishment": _establishment(PROVISIONING_KEY),
    "ProvisioningKey.profile": _one(PROVISIONING_KEY, "device-profiles", lambda place: place.profile_id),
    "Device.state": Nested(
        GATEWAY, "GET /api/v1/devices/{device_id}/state", lambda place: Call({"device_id": place.site.device_id})
    ),
    "Device.deadLetterSummary": Nested(
        GATEWAY,
        "GET /api/v1/devices/{device_id}/dead-letters/summary",
        lambda place: Call({"device_id": place.site.device_id}),
    ),
    "Device.alarms": _those(GATEWAY, "alarms", "device_id", lambda place: place.site.device_id),
    "Device.commands": _those(GATEWAY, "device-commands", "device_id", lambda place: place.site.device_id),
    "DeviceCommand.organization": _organization(COMMAND),
    "DeviceCommand.establishment": _establishment(COMMAND),
    "DeviceCommand.device": _one(COMMAND, "devices", lambda place: place.site.device_id),
    "DeviceCommand.group": Nested(
        OF_GROUP,
        "GET /api/v1/device-command-groups/{group_id}",
        lambda place: Call({"group_id": place.command_group_id}),
    ),
    "DeviceCommandGroup.organization": _organization(COMMAND_GROUP),
    "DeviceCommandGroup.commands": _those(
        COMMAND_GROUP, "device-commands", "group_id", lambda place: place.command_group_id
    ),
    "Alarm.organization": _organization(ALARM),
    "Alarm.establishment": _establishment(ALARM),
    "Alarm.device": _one(ALARM, "devices", lambda place: place.site.device_id),
    "Area.bookings": _those(AREA, "bookings", "area_id", lambda place: place.site.area_id),
    "Establishment.bookings": _those(ESTABLISHMENT, "bookings", "establishment_id", lambda place: place.site.id),
    "Guest.organization": _organization(GUEST),
    "Guest.establishment": _establishment(GUEST),
    "Guest.bookings": _those(GUEST, "bookings", "guest_id", lambda place: place.guest_id),
    "Companion.companion": _one(COMPANIONS, "guests", lambda place: place.companion_id),
    "Booking.organization": _organization(BOOKING),
    "Booking.establishment": _establishment(BOOKING),
    "Booking.area": _one(BOOKING, "areas", lambda place: place.site.area_id),
    "Booking.guest": _one(BOOKING, "guests", lambda place: place.guest_id),
    "Booking.doorCodes": _those(BOOKING, "door-codes", "booking_id", lambda place: place.booking_id),
    "Booking.notifications": _those(BOOKING, "booking-notifications", "booking_id", lambda place: place.booking_id),
    "BookingNotification.organization": _organization(NOTIFICATION),
    "BookingNotification.establishment": _establishment(NOTIFICATION),
    "BookingNotification.booking": _one(NOTIFICATION, "bookings", lambda place: place.booking_id),
    "BookingNotification.guest": _one(NOTIFICATION, "guests", lambda place: place.guest_id),
    "NotificationTemplate.organization": _organization(TEMPLATE),
    "DoorCode.organization": _organization(DOOR_CODE),
    "DoorCode.establishment": _establishment(DOOR_CODE),
    "DoorCode.device": _one(DOOR_CODE, "devices", lambda place: place.site.device_id),
    "DoorCode.booking": _one(DOOR_CODE, "bookings", lambda place: place.booking_id),
    # Nothing was sent yet.
    "DoorCode.command": Nested(DOOR_CODE, "GET /api/v1/device-commands/{command_id}", lambda _: None),
    "DoorLock.device": _one(DOOR_LOCK, "devices", lambda place: place.site.device_id),
    # Made by no user of the world.
    "BookingHistoryEntry.user": Nested(HISTORY, "GET /api/v1/users/{user_id}", lambda _: None),
    "User.role": _one(WORKER, "roles", lambda place: place.world.user_role),
    "User.partnerCompany": _company(PARTNER),
    "User.organization": _organization(WORKER),
    "User.establishments": Nested(
        WORKER, "GET /api/v1/users/{user_id}/establishments", lambda place: Call({"user_id": place.worker.id})
    ),
    "Assignment.user": _worker(ASSIGNMENTS),
    "Assignment.establishment": _establishment(ASSIGNMENTS),
    "Assignment.role": _one(ASSIGNMENTS, "roles", lambda place: place.site_role_id),
    "Role.partnerCompany": _company(COMPANY_ROLE),
    "Role.organization": _organization(SITE_ROLE),
    "Role.establishment": _establishment(SITE_ROLE),
    # Everybody who sees roles sees this one, and of those who have it only his own.
    "Role.users": _those(USER_ROLE, "users", "role_id", lambda place: place.world.user_role),
    "Invitation.role": _one(INVITATION, "roles", lambda place: place.world.user_role),
    "Invitation.partnerCompany": _company(COMPANY_INVITATION),
    "Invitation.organization": _organization(INVITATION),
    "ApiKey.user": _worker(API_KEY),
    "Session.user": _worker(SESSIONS),
    "AuditEntry.actor": _worker(ENTRY),
    "AuditEntry.partnerCompany": _one(ENTRY, "partner-companies", lambda place: place.looked_after_by),
    "AuditEntry.organization": _organization(ENTRY),
    "AuditEntry.establishment": _establishment(ENTRY),
}
# Parts of an answer that are no things by themselves: who gets the one gets the other.
ANSWERS: dict[str, Way] = {
    "IssuedApiKey.apiKey": Way("Mutation.createApiKey", RECIPES[TWINS["Mutation.createApiKey"]]),
    "Onboarding.steps": Way("Query.onboarding", RECIPES[TWINS["Query.onboarding"]]),
}

FIELDS = (*INTROSPECTION, *TWINS, *NESTED, *ANSWERS)


# What is told over sockets alone: `test_live` tries it as everybody.
TOLD_LIVE = frozenset({"Subscription", "CalendarChanges", "LiveBatch", "LiveState", "LiveEvent", "LiveAlarm"})


def fields_of_the_schema() -> Iterator[str]:
    """Every field that leads to a thing or does something."""
    yield from INTROSPECTION
    for name, kind in SCHEMA.type_map.items():
        is_part = name.startswith("__") or name.endswith(PARTS_OF_LISTS) or name in TOLD_LIVE
        if not isinstance(kind, GraphQLObjectType) or is_part:
            continue
        if name in WHOLES:
            continue
        is_root = kind in (SCHEMA.query_type, SCHEMA.mutation_type, SCHEMA.subscription_type)
        for field_name, field in kind.fields.items():
            if is_root or isinstance(get_named_type(field.type), GraphQLObjectType):
                yield f"{name}.{field_name}"


def operation(name: str, place: Place) -> tuple[str, tuple[str, ...]]:
    """An operation that asks for a field, and the way to it through the answer."""
    if name in INTROSPECTION:
        return INTROSPECTION[name], (name.split(".")[1],)
    if name in TWINS:
        return _document(Way(name, GIVEN.get(name, RECIPES[TWINS[name]])), place, _selection(name)), (
            name.split(".")[1],
        )
    way = NESTED[name].parent if name in NESTED else ANSWERS[name]
    inner = f"{{ {name.split('.')[1]} {_selection(name)} }}"
    is_list = get_named_type(_declared(way.field).type).name.endswith("Connection")
    selection = f"{{ totalCount edges {{ node {inner} }} }}" if is_list else inner
    return _document(way, place, selection), (way.field.split(".")[1], name.split(".")[1])


def _document(way: Way, place: Place, selection: str) -> str:
    root, field = way.field.split(".")
    call = way.given(place)
    given = {{"q": "search"}.get(name, name): value for name, value in call.params.items()}
    # A path names one thing at most.
    given |= dict(zip(["id"], call.path.values(), strict=False))
    if call.body is not None:
        given["input"] = call.body
    arguments = f"({', '.join(f'{to_camel_case(name)}: {_literal(value)}' for name, value in given.items())})"
    return f"{root.lower()} {{ {field}{arguments if given else ''} {selection} }}"


def _selection(name: str) -> str:
    kind = get_named_type(_declared(name).type)
    if not isinstance(kind, GraphQLObjectType):
        return ""
    if kind.name.endswith("Connection"):
        total = "totalCount" if "totalCount" in kind.fields else ""
        return f"{{ {total} edges {{ node {{ __typename }} }} }}"
    return "{ __typename }"


def _declared(name: str) -> Any:
    kind, field = name.split(".")
    return SCHEMA.type_map[kind].fields[field]  # type: ignore[attr-defined]


def _literal(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{to_camel_case(name)}: {_literal(one)}' for name, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(_literal(one) for one in value)}]"
    return json.dumps(value, default=str)
