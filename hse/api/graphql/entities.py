"""The entities of the graph: which rows they are, what lets one see them, and how they are listed."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from hse.adapters.postgres.alarms import Alarms
from hse.adapters.postgres.api_keys import ApiKeys
from hse.adapters.postgres.audit import AuditEntries
from hse.adapters.postgres.booking_notifications import BookingNotifications, NotificationTemplates
from hse.adapters.postgres.bookings import BookingHistory, Bookings
from hse.adapters.postgres.device_commands import DeviceCommandGroups, DeviceCommands
from hse.adapters.postgres.device_profiles import DeviceProfiles
from hse.adapters.postgres.devices import Devices
from hse.adapters.postgres.door_codes import DoorCodes
from hse.adapters.postgres.guests import Guests
from hse.adapters.postgres.invitations import Invitations
from hse.adapters.postgres.organizations import Areas, Establishments, Organizations, PartnerCompanies
from hse.adapters.postgres.provisioning_keys import ProvisioningKeys
from hse.adapters.postgres.roles import Roles
from hse.adapters.postgres.sessions import Sessions
from hse.adapters.postgres.stores import TableStore
from hse.adapters.postgres.users import Users
from hse.adapters.postgres.work import PostgresWork
from hse.domain.alerts import queries as alerts
from hse.domain.booking import booking_notifications, bookings, door_codes, guests
from hse.domain.booking.model import Booking, BookingHistoryEntry
from hse.domain.devices import commanding, device_profiles, provisioning_keys
from hse.domain.devices import queries as devices
from hse.domain.devices.ports import SEE_PROFILES
from hse.domain.errors import Invalid
from hse.domain.identity import api_keys, audit, invitations, roles, session_control, users
from hse.domain.identity.audit import AuditEntry
from hse.domain.organizations import queries as organizations
from hse.domain.paging import Page, PageQuery


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entity:
    """One kind of thing. `type_name` and `module` say where its GraphQL type stands.

    `filters` are what lists take; `guarded_filters` those that only the noun's own query may apply, because it looks at more
    than the column: inside another thing there are none of them.
    """

    type_name: str
    module: str
    see: str
    rows: type[TableStore[Any]]
    page: Callable[[PostgresWork, PageQuery], Awaitable[Page[Any]]]
    filters: Mapping[str, Any] = field(default_factory=dict)
    guarded_filters: Mapping[str, Any] = field(default_factory=dict)


async def _audit_entries(work: PostgresWork, query: PageQuery) -> Page[AuditEntry]:
    """The page under the names that the log's filters have: `from` is no name that an argument can have in Python."""
    filters = {{"since": "from"}.get(name, name): value for name, value in query.filters.items()}
    for name, moment in filters.items():
        if isinstance(moment, datetime) and moment.tzinfo is None:
            raise Invalid("since" if name == "from" else name, "name the time zone, such as 2030-01-01T00:00:00Z")
    return await audit.audit_entries(work, replace(query, filters=filters))


async def _bookings(work: PostgresWork, query: PageQuery) -> Page[Booking]:
    """The page of the stays that touch the time from `since` to `until`."""
    filters = {{"since": "from", "until": "to"}.get(name, name): value for name, value in query.filters.items()}
    for name in ("since", "until"):
        moment = query.filters.get(name)
        if isinstance(moment, datetime) and moment.tzinfo is None:
            raise Invalid(name, "name the time zone, such as 2030-01-01T00:00:00Z")
    return await bookings.bookings(work, replace(query, filters=filters))


async def _booking_history(work: PostgresWork, query: PageQuery) -> Page[BookingHistoryEntry]:
    """The page of what happened to any booking that may be seen."""
    return await BookingHistory(work).page(work.actor.require(bookings.SEE_BOOKINGS), query)


ORGANIZATIONS_MODULE = "hse.api.graphql.organizations"
IDENTITY_MODULE = "hse.api.graphql.identity"
BOOKING_MODULE = "hse.api.graphql.booking"
DOOR_CODES_MODULE = "hse.api.graphql.door_codes"
NOTIFICATIONS_MODULE = "hse.api.graphql.booking_notifications"
COMMANDS_MODULE = "hse.api.graphql.device_commands"

PARTNER_COMPANIES = Entity(
    type_name="PartnerCompany",
    module=ORGANIZATIONS_MODULE,
    see="read_partner_company",
    rows=PartnerCompanies,
    page=organizations.partner_companies,
    filters={"is_active": bool},
)
ORGANIZATIONS = Entity(
    type_name="Organization",
    module=ORGANIZATIONS_MODULE,
    see="read_organization",
    rows=Organizations,
    page=organizations.organizations,
    filters={"partner_company_id": UUID, "is_active": bool},
)
ESTABLISHMENTS = Entity(
    type_name="Establishment",
    module=ORGANIZATIONS_MODULE,
    see="read_establishment",
    rows=Establishments,
    page=organizations.establishments,
    filters={"organization_id": UUID, "is_active": bool},
)
AREAS = Entity(
    type_name="Area",
    module=ORGANIZATIONS_MODULE,
    see="read_area",
    rows=Areas,
    page=organizations.areas,
    filters={"establishment_id": UUID, "parent_area_id": UUID},
)
DEVICES = Entity(
    type_name="Device",
    module="hse.api.graphql.devices",
    see="read_device",
    rows=Devices,
    page=devices.devices,
    filters={
        "organization_id": UUID,
        "establishment_id": UUID,
        "area_id": UUID,
        "gateway_id": UUID,
        "profile_id": UUID,
        "device_type": str,
        "protocol": str,
        "is_enabled": bool,
    },
)
DEVICE_PROFILES = Entity(
    type_name="DeviceProfile",
    module="hse.api.graphql.device_profiles",
    see=SEE_PROFILES,
    rows=DeviceProfiles,
    page=device_profiles.device_profiles,
    filters={"organization_id": UUID, "format_kind": str},
)
PROVISIONING_KEYS = Entity(
    type_name="ProvisioningKey",
    module="hse.api.graphql.provisioning_keys",
    see=provisioning_keys.SEE_KEYS,
    rows=ProvisioningKeys,
    page=provisioning_keys.provisioning_keys,
    filters={"organization_id": UUID, "establishment_id": UUID, "profile_id": UUID, "is_enabled": bool},
)
ALARMS = Entity(
    type_name="Alarm",
    module="hse.api.graphql.alerts",
    see="read_alarm",
    rows=Alarms,
    page=alerts.alarms,
    filters={
        "organization_id": UUID,
        "establishment_id": UUID,
        "device_id": UUID,
        "type": str,
        "severity": str,
        "state": str,
    },
)
DEVICE_COMMANDS = Entity(
    type_name="DeviceCommand",
    module=COMMANDS_MODULE,
    see="read_command",
    rows=DeviceCommands,
    page=commanding.commands,
    filters={
        "organization_id": UUID,
        "establishment_id": UUID,
        "device_id": UUID,
        "group_id": UUID,
        "state": str,
        "type": str,
    },
)
DEVICE_COMMAND_GROUPS = Entity(
    type_name="DeviceCommandGroup",
    module=COMMANDS_MODULE,
    see="read_command",
    rows=DeviceCommandGroups,
    page=commanding.command_groups,
    filters={"organization_id": UUID, "type": str},
)
GUESTS = Entity(
    type_name="Guest",
    module=BOOKING_MODULE,
    see=guests.SEE_GUESTS,
    rows=Guests,
    page=guests.guests,
    filters={"organization_id": UUID, "establishment_id": UUID},
    guarded_filters={"email": str, "document_number": str},
)
BOOKINGS = Entity(
    type_name="Booking",
    module=BOOKING_MODULE,
    see=bookings.SEE_BOOKINGS,
    rows=Bookings,
    page=_bookings,
    filters={"organization_id": UUID, "establishment_id": UUID, "area_id": UUID, "guest_id": UUID, "status": str},
    guarded_filters={"since": datetime, "until": datetime},
)
DOOR_CODES = Entity(
    type_name="DoorCode",
    module=DOOR_CODES_MODULE,
    see=door_codes.SEE_CODES,
    rows=DoorCodes,
    page=door_codes.door_codes,
    filters={"organization_id": UUID, "establishment_id": UUID, "booking_id": UUID, "device_id": UUID, "state": str},
)
BOOKING_NOTIFICATIONS = Entity(
    type_name="BookingNotification",
    module=NOTIFICATIONS_MODULE,
    see=booking_notifications.SEE_NOTIFICATIONS,
    rows=BookingNotifications,
    page=booking_notifications.booking_notifications,
    filters={"organization_id": UUID, "establishment_id": UUID, "booking_id": UUID, "status": str, "channel": str},
)
NOTIFICATION_TEMPLATES = Entity(
    type_name="NotificationTemplate",
    module=NOTIFICATIONS_MODULE,
    see=booking_notifications.SEE_TEMPLATES,
    rows=NotificationTemplates,
    page=booking_notifications.notification_templates,
    filters={"organization_id": UUID, "type": str, "channel": str, "language": str},
)
BOOKING_HISTORY = Entity(
    type_name="BookingHistoryEntry",
    module=BOOKING_MODULE,
    see=bookings.SEE_BOOKINGS,
    rows=BookingHistory,
    page=_booking_history,
)
API_KEYS = Entity(
    type_name="ApiKey",
    module=IDENTITY_MODULE,
    see="manage_user_sessions",
    rows=ApiKeys,
    page=api_keys.own_api_keys,
)
SESSIONS = Entity(
    type_name="Session",
    module=IDENTITY_MODULE,
    see="manage_user_sessions",
    rows=Sessions,
    page=session_control.own_sessions,
)
AUDIT_ENTRIES = Entity(
    type_name="AuditEntry",
    module=IDENTITY_MODULE,
    see="read_audit",
    rows=AuditEntries,
    page=_audit_entries,
    guarded_filters={
        "actor_id": UUID,
        "entity_type": str,
        "entity_id": str,
        "action": str,
        "since": datetime,
        "until": datetime,
    },
)
USERS = Entity(
    type_name="User",
    module=IDENTITY_MODULE,
    see="read_user",
    rows=Users,
    page=users.users,
    filters={"role_id": UUID, "partner_company_id": UUID, "organization_id": UUID, "is_active": bool},
    guarded_filters={"establishment_id": UUID},
)
ROLES = Entity(
    type_name="Role",
    module=IDENTITY_MODULE,
    see="read_role",
    rows=Roles,
    page=roles.roles,
    filters={"partner_company_id": UUID, "organization_id": UUID, "establishment_id": UUID},
)
INVITATIONS = Entity(
    type_name="Invitation",
    module=IDENTITY_MODULE,
    see="read_user",
    rows=Invitations,
    page=invitations.invitations,
    guarded_filters={"status": str, "partner_company_id": UUID, "organization_id": UUID},
)
