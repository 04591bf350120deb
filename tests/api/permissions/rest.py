"""One valid request for every REST operation: what is tried is the permission, so nothing else about it may be wrong.

A key is "METHOD path" as the OpenAPI document has it. A recipe is given the place that the thing stands at, and says what goes
into the path, the query and the body.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.api.permissions.actors import Place


@dataclass(frozen=True)
class Call:
    """What a request is made of, beside its method and its caller."""

    path: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    body: Any = None
    # What is sent instead of a body of JSON.
    content: bytes | None = None


A_STAY = {"check_in": "2035-01-01T18:00:00Z", "check_out": "2035-01-02T14:00:00Z"}
A_DRAFT = {"type": "booking_confirmed", "channel": "sms", "language": "en"}
A_DAY = {"from": "2025-01-01T00:00:00Z", "to": "2025-01-02T00:00:00Z"}

Recipe = Callable[[Place], Call]


def _partner_company(body: Any = None) -> Recipe:
    return lambda place: Call({"partner_company_id": place.partner_company_id}, body=body)


def _organization(body: Any = None) -> Recipe:
    return lambda place: Call({"organization_id": place.tenant.id}, body=body)


def _establishment(body: Any = None) -> Recipe:
    return lambda place: Call({"establishment_id": place.site.id}, body=body)


def _area(body: Any = None) -> Recipe:
    return lambda place: Call({"area_id": place.site.area_id}, body=body)


def _role(body: Any = None) -> Recipe:
    return lambda place: Call({"role_id": place.role_id}, body=body)


def _user(body: Any = None) -> Recipe:
    return lambda place: Call({"user_id": place.worker.id}, body=body)


def _device(body: Any = None) -> Recipe:
    return lambda place: Call({"device_id": place.site.device_id}, body=body)


def _telemetry(**params: str) -> Recipe:
    return lambda place: Call(params={"device_id": str(place.site.device_id), **params})


def _import(place: Place) -> Call:
    """A row that registers a device there: 422 with its report when that may not be done."""
    cells = ["device", str(place.tenant.id), place.site.name, "New"]
    return Call(content=f"kind,organization,establishment,name\n{','.join(cells)}\n".encode())


def _invitation(place: Place) -> Call:
    return Call({"invitation_id": place.invitation_id})


def _new_invitation(place: Place) -> Call:
    body = {
        "email": "new@example.org",
        "first_name": "Nora",
        "last_name": "Paz",
        "role_id": str(place.world.user_role),
        "organization_id": str(place.tenant.id),
        "establishment_ids": [str(place.site.id)],
    }
    return Call(body=body)


def _no_thing(body: Any = None) -> Recipe:
    return lambda _: Call(body=body)


def _api_key(body: Any = None) -> Recipe:
    return lambda place: Call({"api_key_id": place.api_key_id}, body=body)


def _guest(body: Any = None) -> Recipe:
    return lambda place: Call({"guest_id": place.guest_id}, body=body)


def _booking(body: Any = None) -> Recipe:
    return lambda place: Call({"booking_id": place.booking_id}, body=body)


def _door_code(place: Place) -> Call:
    return Call({"code_id": place.door_code_id})


def _notification(place: Place) -> Call:
    return Call({"notification_id": place.notification_id})


def _template(body: Any = None) -> Recipe:
    return lambda place: Call({"template_id": place.template_id}, body=body)


def _profile(body: Any = None) -> Recipe:
    return lambda place: Call({"profile_id": place.profile_id}, body=body)


def _provisioning_key(body: Any = None) -> Recipe:
    return lambda place: Call({"key_id": place.provisioning_key_id}, body=body)


def _backup(place: Place) -> Call:
    return Call({"booking_id": place.booking_id}, body={"device_id": str(place.site.device_id)})


def _command(place: Place) -> Call:
    return Call({"command_id": place.command_id})


def _command_group(place: Place) -> Call:
    return Call({"group_id": place.command_group_id})


RECIPES: dict[str, Recipe] = {
    # Nobody there has a password, so none is right.
    "POST /api/v1/auth/login": _no_thing({"email": "nobody@example.com", "password": "wrong"}),
    "POST /api/v1/auth/refresh": _no_thing({"refresh_token": "unknown"}),
    "POST /api/v1/auth/logout": _no_thing({}),
    "POST /api/v1/auth/password-reset": _no_thing({"email": "nobody@example.com"}),
    "POST /api/v1/auth/password-reset/confirm": _no_thing({"token": "unknown", "new_password": "wrong"}),
    "GET /api/v1/me": _no_thing(),
    "PATCH /api/v1/me": _no_thing({"first_name": "Eva"}),
    "GET /api/v1/sessions": _no_thing(),
    "DELETE /api/v1/sessions/{session_id}": lambda place: Call({"session_id": place.worker.session_id}),
    "GET /api/v1/users/{user_id}/sessions": _user(),
    "DELETE /api/v1/users/{user_id}/sessions": _user(),
    "POST /api/v1/me/password": _no_thing({"password": "wrong", "new_password": "wrong"}),
    "POST /api/v1/me/totp": _no_thing({"password": "wrong"}),
    "POST /api/v1/me/totp/confirm": _no_thing({"totp_code": "000000"}),
    "POST /api/v1/me/totp/disable": _no_thing({"password": "wrong"}),
    "POST /api/v1/me/recovery-codes": _no_thing({"password": "wrong"}),
    "GET /api/v1/partner-companies": _no_thing(),
    "POST /api/v1/partner-companies": _no_thing({"name": "Gamma"}),
    "GET /api/v1/partner-companies/{partner_company_id}": _partner_company(),
    "GET /api/v1/partner-companies/{partner_company_id}/analytics": _partner_company(),
    "PATCH /api/v1/partner-companies/{partner_company_id}": _partner_company({"address": "There"}),
    "DELETE /api/v1/partner-companies/{partner_company_id}": _partner_company(),
    "GET /api/v1/organizations": lambda place: Call(params={"partner_company_id": str(place.partner_company_id)}),
    "POST /api/v1/organizations": lambda place: Call(
        body={"name": "New", "partner_company_id": str(place.partner_company_id)}
    ),
    "GET /api/v1/organizations/{organization_id}": _organization(),
    "PATCH /api/v1/organizations/{organization_id}": _organization({"address": "There"}),
    "DELETE /api/v1/organizations/{organization_id}": _organization(),
    "GET /api/v1/establishments": lambda place: Call(params={"organization_id": str(place.tenant.id)}),
    "POST /api/v1/establishments": lambda place: Call(
        body={"organization_id": str(place.tenant.id), "name": "New", "timezone": "UTC"}
    ),
    "GET /api/v1/establishments/{establishment_id}": _establishment(),
    "PATCH /api/v1/establishments/{establishment_id}": _establishment({"address": "There"}),
    "DELETE /api/v1/establishments/{establishment_id}": _establishment(),
    "GET /api/v1/areas": lambda place: Call(params={"establishment_id": str(place.site.id)}),
    "POST /api/v1/areas": lambda place: Call(
        body={"establishment_id": str(place.site.id), "name": "New", "type": "office"}
    ),
    "GET /api/v1/areas/{area_id}": _area(),
    "PATCH /api/v1/areas/{area_id}": _area({"floor": 3}),
    "DELETE /api/v1/areas/{area_id}": _area(),
    "GET /api/v1/devices": lambda place: Call(params={"establishment_id": str(place.site.id)}),
    "POST /api/v1/devices": lambda place: Call(body={"establishment_id": str(place.site.id), "name": "New"}),
    "GET /api/v1/devices/{device_id}": _device(),
    "GET /api/v1/devices/{device_id}/children": _device(),
    "PATCH /api/v1/devices/{device_id}": _device({"is_enabled": False}),
    "DELETE /api/v1/devices/{device_id}": lambda place: Call({"device_id": place.child_id}),
    "POST /api/v1/devices/{device_id}/token": _device(),
    "DELETE /api/v1/devices/{device_id}/token": _device(),
    "GET /api/v1/device-profiles": lambda place: Call(params={"organization_id": str(place.tenant.id)}),
    "POST /api/v1/device-profiles": lambda place: Call(body={"organization_id": str(place.tenant.id), "name": "New"}),
    "GET /api/v1/device-profiles/{profile_id}": _profile(),
    "PATCH /api/v1/device-profiles/{profile_id}": _profile({"description": "Known"}),
    "DELETE /api/v1/device-profiles/{profile_id}": lambda place: Call({"profile_id": place.spare_profile_id}),
    "GET /api/v1/devices/{device_id}/dead-letters": _device(),
    "GET /api/v1/devices/{device_id}/dead-letters/summary": _device(),
    "GET /api/v1/devices/{device_id}/attributes": _device(),
    "PATCH /api/v1/devices/{device_id}/attributes": _device({"desired": {"interval": 60}}),
    "GET /api/v1/provisioning-keys": lambda place: Call(params={"establishment_id": str(place.site.id)}),
    "POST /api/v1/provisioning-keys": lambda place: Call(body={"establishment_id": str(place.site.id), "name": "New"}),
    "GET /api/v1/provisioning-keys/{key_id}": _provisioning_key(),
    "PATCH /api/v1/provisioning-keys/{key_id}": _provisioning_key({"is_enabled": False}),
    "DELETE /api/v1/provisioning-keys/{key_id}": _provisioning_key(),
    "POST /api/v1/devices/{device_id}/claim-code": lambda place: Call({"device_id": place.waiting_device_id}),
    "DELETE /api/v1/devices/{device_id}/claim-code": lambda place: Call({"device_id": place.waiting_device_id}),
    "POST /api/v1/device-claims": lambda place: Call(
        body={"code": f"code of {place.name}", "establishment_id": str(place.site.id)}
    ),
    "GET /api/v1/devices/{device_id}/commands": _device(),
    "POST /api/v1/devices/{device_id}/commands": _device({"type": "ping"}),
    "GET /api/v1/device-commands": lambda place: Call(params={"device_id": str(place.site.device_id)}),
    "GET /api/v1/device-commands/{command_id}": _command,
    "POST /api/v1/device-commands/{command_id}/cancel": _command,
    "GET /api/v1/device-command-groups": lambda place: Call(params={"q": f"to {place.name}"}),
    "POST /api/v1/device-command-groups": lambda place: Call(
        body={"type": "ping", "target": {"establishment_id": str(place.site.id)}}
    ),
    "GET /api/v1/device-command-groups/{group_id}": _command_group,
    "POST /api/v1/device-command-groups/{group_id}/cancel": _command_group,
    "GET /api/v1/devices/{device_id}/events": _device(),
    "GET /api/v1/devices/{device_id}/events.csv": lambda place: Call({"device_id": place.site.device_id}, params=A_DAY),
    "GET /api/v1/devices/{device_id}/state": _device(),
    "GET /api/v1/telemetry/states": _telemetry(),
    "GET /api/v1/telemetry/latest": _telemetry(),
    "GET /api/v1/telemetry/series": _telemetry(type="power", **A_DAY),
    "GET /api/v1/telemetry/series.csv": _telemetry(type="power", **A_DAY),
    "POST /api/v1/imports/sites": _import,
    # Of an application that is about to end, so that the stream ends, too.
    "GET /api/v1/live": lambda place: Call(params={"device_id": place.site.device_id}),
    "GET /api/v1/alarms": lambda place: Call(params={"device_id": place.site.device_id}),
    "GET /api/v1/alarms/{alarm_id}": lambda place: Call({"alarm_id": place.alarm_id}),
    "GET /api/v1/guests": lambda place: Call(params={"establishment_id": str(place.site.id)}),
    "POST /api/v1/guests": lambda place: Call(
        body={"establishment_id": str(place.site.id), "first_name": "Eva", "last_name": "Paz"}
    ),
    "GET /api/v1/guests/{guest_id}": _guest(),
    "PATCH /api/v1/guests/{guest_id}": _guest({"language": "en"}),
    "GET /api/v1/guests/{guest_id}/companions": _guest(),
    "PUT /api/v1/guests/{guest_id}/companions/{companion_id}": lambda place: Call(
        {"guest_id": place.guest_id, "companion_id": place.other_guest_id}, body={"relationship": "friend"}
    ),
    "DELETE /api/v1/guests/{guest_id}/companions/{companion_id}": lambda place: Call(
        {"guest_id": place.guest_id, "companion_id": place.companion_id}
    ),
    "POST /api/v1/guests/{guest_id}/export": _guest(),
    "POST /api/v1/guests/{guest_id}/erase": lambda place: Call({"guest_id": place.other_guest_id}),
    "GET /api/v1/bookings": lambda place: Call(params={"establishment_id": str(place.site.id)}),
    "POST /api/v1/bookings": lambda place: Call(
        body={"area_id": str(place.site.area_id), "guest_id": str(place.guest_id), **A_STAY}
    ),
    "GET /api/v1/bookings/{booking_id}": _booking(),
    "GET /api/v1/bookings/{booking_id}/history": _booking(),
    "PATCH /api/v1/bookings/{booking_id}": _booking({"num_guests": 2}),
    "POST /api/v1/bookings/{booking_id}/confirm": _booking(),
    "POST /api/v1/bookings/{booking_id}/cancel": _booking({}),
    "DELETE /api/v1/bookings/{booking_id}": _booking(),
    "GET /api/v1/bookings/{booking_id}/door-codes": _booking(),
    "POST /api/v1/bookings/{booking_id}/door-codes/pull-backup": _backup,
    "GET /api/v1/devices/{device_id}/door-codes": _device(),
    "GET /api/v1/door-codes": lambda place: Call(params={"establishment_id": str(place.site.id)}),
    "GET /api/v1/door-codes/{code_id}": _door_code,
    "POST /api/v1/door-codes/{code_id}/retry": _door_code,
    "GET /api/v1/devices/{device_id}/door-lock": _device(),
    "PATCH /api/v1/devices/{device_id}/door-lock": _device({"wrong_codes_max": 3}),
    "GET /api/v1/bookings/{booking_id}/notifications": _booking(),
    "GET /api/v1/booking-notifications": lambda place: Call(params={"booking_id": str(place.booking_id)}),
    "GET /api/v1/booking-notifications/{notification_id}": _notification,
    "POST /api/v1/booking-notifications/{notification_id}/resend": _notification,
    "GET /api/v1/notification-templates": lambda place: Call(params={"organization_id": str(place.tenant.id)}),
    "POST /api/v1/notification-templates": lambda place: Call(
        body={**A_DRAFT, "organization_id": str(place.tenant.id), "subject": "Hello", "message": "Hello"}
    ),
    "POST /api/v1/notification-templates/preview": _no_thing(A_DRAFT),
    "GET /api/v1/notification-templates/{template_id}": _template(),
    "PATCH /api/v1/notification-templates/{template_id}": _template({"subject": "Hello"}),
    "DELETE /api/v1/notification-templates/{template_id}": _template(),
    "GET /api/v1/establishments/{establishment_id}/booking-settings": _establishment(),
    "PATCH /api/v1/establishments/{establishment_id}/booking-settings": _establishment({"code_lead_hours": 12}),
    "GET /api/v1/areas/{area_id}/booking-calendar": _area(),
    "POST /api/v1/areas/{area_id}/booking-calendar": _area(),
    "DELETE /api/v1/areas/{area_id}/booking-calendar": _area(),
    # Whose link it is, is all that matters there: nobody's.
    "GET /api/v1/booking-calendars/{area_id}/{token}": lambda place: Call(
        {"area_id": place.site.area_id, "token": "unknown"}
    ),
    "GET /api/v1/areas/{area_id}/availability": lambda place: Call({"area_id": place.site.area_id}, params=A_DAY),
    "GET /api/v1/areas/{area_id}/nights": lambda place: Call(
        {"area_id": place.site.area_id}, params={"first": "2030-01-01"}
    ),
    "GET /api/v1/establishments/{establishment_id}/availability": lambda place: Call(
        {"establishment_id": place.site.id}, params=A_DAY
    ),
    "GET /api/v1/api-keys": _no_thing(),
    "POST /api/v1/api-keys": _no_thing({"name": "dashboard", "actions": ["read_establishment"]}),
    "GET /api/v1/api-keys/{api_key_id}": _api_key(),
    "PATCH /api/v1/api-keys/{api_key_id}": _api_key({"name": "renamed"}),
    "DELETE /api/v1/api-keys/{api_key_id}": _api_key(),
    "GET /api/v1/users/{user_id}/api-keys": _user(),
    "GET /api/v1/audit-entries": lambda place: Call(params={"entity_id": place.audited_id}),
    "GET /api/v1/actions": _no_thing(),
    "GET /api/v1/roles": lambda place: Call(params={"organization_id": str(place.tenant.id)}),
    "POST /api/v1/roles": lambda place: Call(
        body={"name": "New", "actions": ["read_device"], "establishment_id": str(place.site.id)}
    ),
    "GET /api/v1/roles/{role_id}": _role(),
    "PATCH /api/v1/roles/{role_id}": _role({"actions": ["read_area"]}),
    "DELETE /api/v1/roles/{role_id}": _role(),
    "GET /api/v1/users": lambda place: Call(params={"organization_id": str(place.tenant.id)}),
    "GET /api/v1/users/{user_id}": _user(),
    "PATCH /api/v1/users/{user_id}": _user({"is_active": False}),
    "DELETE /api/v1/users/{user_id}": _user(),
    "GET /api/v1/invitations": lambda place: Call(params={"organization_id": str(place.tenant.id)}),
    "POST /api/v1/invitations": _new_invitation,
    "GET /api/v1/invitations/{invitation_id}": _invitation,
    "POST /api/v1/invitations/{invitation_id}/resend": _invitation,
    "POST /api/v1/invitations/{invitation_id}/revoke": _invitation,
    # Whose token it is, is all that matters there: nobody's.
    "POST /api/v1/invitations/preview": _no_thing({"token": "unknown"}),
    "POST /api/v1/invitations/accept": _no_thing({"token": "unknown", "password": "seven otters juggle plums"}),
    "POST /api/v1/invitations/reject": _no_thing({"token": "unknown"}),
    "GET /api/v1/onboarding": _no_thing(),
    "POST /api/v1/onboarding/complete": _no_thing(),
    "PUT /api/v1/users/{user_id}/role": lambda place: Call(
        {"user_id": place.worker.id}, body={"role_id": str(place.organization_role_id)}
    ),
    "GET /api/v1/users/{user_id}/establishments": _user(),
    "PUT /api/v1/users/{user_id}/establishments": lambda place: Call(
        {"user_id": place.worker.id}, body={"establishments": [{"establishment_id": str(place.site.id)}]}
    ),
}
