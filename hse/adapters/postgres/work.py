"""One transaction of the control plane, with the stores of every noun."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from hse.adapters.postgres.alarms import Alarms
from hse.adapters.postgres.api_keys import ApiKeys
from hse.adapters.postgres.audit import AuditEntries
from hse.adapters.postgres.authentication import Accounts, SessionKeeper
from hse.adapters.postgres.booking_calendars import BookingCalendars
from hse.adapters.postgres.booking_notifications import BookingNotifications, NotificationTemplates
from hse.adapters.postgres.booking_settings import BookingSettingsStore
from hse.adapters.postgres.bookings import Bookings
from hse.adapters.postgres.dead_letters import DeadLetters
from hse.adapters.postgres.device_attributes import AttributesNotices, DeviceAttributesRows
from hse.adapters.postgres.device_claims import CLAIM_CHARS, UNMISTAKABLE, DeviceClaims, code_of
from hse.adapters.postgres.device_commands import DeviceCommandGroups, DeviceCommands
from hse.adapters.postgres.device_profiles import DeviceProfiles
from hse.adapters.postgres.devices import Devices
from hse.adapters.postgres.door_codes import DoorCodes, DoorLocks
from hse.adapters.postgres.guests import Guests
from hse.adapters.postgres.history import Telemetry
from hse.adapters.postgres.identity_tables import audit_entries
from hse.adapters.postgres.invitations import Invitations
from hse.adapters.postgres.mail import Outbox, OutgoingMail
from hse.adapters.postgres.onboarding import OnboardingState
from hse.adapters.postgres.organizations import Areas, Establishments, Organizations, PartnerCompanies
from hse.adapters.postgres.people import People
from hse.adapters.postgres.provisioning_keys import ProvisioningKeys
from hse.adapters.postgres.roles import Actions, Roles
from hse.adapters.postgres.second_factors import SecondFactors
from hse.adapters.postgres.sessions import Sessions
from hse.adapters.postgres.users import Assignments, Users
from hse.adapters.sealing import Sealer
from hse.adapters.tokens import hash_of, new_secret
from hse.domain.booking.views import CalendarToken
from hse.domain.devices.device_claims import ClaimCode
from hse.domain.devices.model import TOKEN_ENTROPY_BYTES, DeviceToken, token_from_entropy
from hse.domain.identity.ports import OneTimeToken
from hse.domain.policy import Actor
from hse.domain.work import Record

CONFIRMATION_CHARS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a request came from, as the audit log tells it."""

    address: str | None = None
    correlation_id: str | None = None


class PostgresWork:
    """The transaction of one actor. Nothing is kept unless `commit` was called."""

    def __init__(
        self, connection: AsyncConnection, actor: Actor, origin: Origin, now: datetime, outbox: Outbox
    ) -> None:
        self.connection = connection
        self.actor = actor
        self.origin = origin
        self.now = now
        self.outbox = outbox
        # Of the API key that the actor came with.
        self.requests_per_minute: int | None = None
        self.permission_seconds = 0.0

    @property
    def actor_id(self) -> UUID:
        """Who is written down as the one who did it."""
        return self.actor.user_id

    async def commit(self) -> None:
        """Keep what was done."""
        await self.connection.commit()

    def new_id(self) -> UUID:
        """An id that nothing has."""
        return uuid4()

    def new_device_token(self) -> DeviceToken:
        """A token that nobody can guess."""
        return token_from_entropy(secrets.token_bytes(TOKEN_ENTROPY_BYTES))

    def new_token(self) -> OneTimeToken:
        """A secret that nobody can guess."""
        text = new_secret()
        return OneTimeToken(text=text, token_hash=hash_of(text))

    def new_calendar_token(self) -> CalendarToken:
        """A secret that nobody can guess."""
        text = new_secret()
        return CalendarToken(text=text, token_hash=hash_of(text))

    def new_confirmation_code(self) -> str:
        """A code of letters and digits that nobody mistakes for others; there are 2^46 of them."""
        return "".join(secrets.choice(UNMISTAKABLE) for _ in range(CONFIRMATION_CHARS))

    def new_claim_code(self) -> ClaimCode:
        """A code that nobody can guess and everybody can type."""
        return code_of("".join(secrets.choice(UNMISTAKABLE) for _ in range(CLAIM_CHARS)))

    async def record(self, record: Record) -> None:
        """Write to the audit log."""
        await add_audit_entry(self.connection, record, self.origin, self.actor)

    @property
    def partner_companies(self) -> PartnerCompanies:
        """The partner companies."""
        return PartnerCompanies(self)

    @property
    def organizations(self) -> Organizations:
        """The organisations."""
        return Organizations(self)

    @property
    def establishments(self) -> Establishments:
        """The establishments."""
        return Establishments(self)

    @property
    def areas(self) -> Areas:
        """The areas."""
        return Areas(self)

    @property
    def devices(self) -> Devices:
        """The devices."""
        return Devices(self)

    @property
    def device_profiles(self) -> DeviceProfiles:
        """The profiles of devices."""
        return DeviceProfiles(self)

    @property
    def device_attributes(self) -> DeviceAttributesRows:
        """What devices are desired and reported to be."""
        return DeviceAttributesRows(self)

    @property
    def attributes_road(self) -> AttributesNotices:
        """The way to those who speak with devices."""
        return AttributesNotices(self)

    @property
    def provisioning_keys(self) -> ProvisioningKeys:
        """How devices get in by themselves."""
        return ProvisioningKeys(self)

    @property
    def device_claims(self) -> DeviceClaims:
        """The codes that devices are claimed with."""
        return DeviceClaims(self)

    @property
    def alarms(self) -> Alarms:
        """The alarms of devices."""
        return Alarms(self)

    @property
    def device_commands(self) -> DeviceCommands:
        """The commands to devices."""
        return DeviceCommands(self)

    @property
    def device_command_groups(self) -> DeviceCommandGroups:
        """The commands to many devices."""
        return DeviceCommandGroups(self)

    @property
    def guests(self) -> Guests:
        """The guests."""
        return Guests(self)

    @property
    def bookings(self) -> Bookings:
        """The bookings."""
        return Bookings(self)

    @property
    def booking_settings(self) -> BookingSettingsStore:
        """How establishments take bookings."""
        return BookingSettingsStore(self)

    @property
    def booking_calendars(self) -> BookingCalendars:
        """The calendars of areas that have a link."""
        return BookingCalendars(self)

    @property
    def door_codes(self) -> DoorCodes:
        """The codes of locks."""
        return DoorCodes(self)

    @property
    def door_locks(self) -> DoorLocks:
        """How locks are looked after."""
        return DoorLocks(self)

    @property
    def booking_notifications(self) -> BookingNotifications:
        """What guests are told of their bookings."""
        return BookingNotifications(self)

    @property
    def notification_templates(self) -> NotificationTemplates:
        """The words of organisations."""
        return NotificationTemplates(self)

    @property
    def sealer(self) -> Sealer:
        """Who opens what the database must not know."""
        return self.outbox.sealer

    @property
    def telemetry(self) -> Telemetry:
        """The events of the devices that it names, and their aggregates."""
        return Telemetry(self.connection)

    @property
    def dead_letters(self) -> DeadLetters:
        """What the devices that it names sent and nobody could understand or store."""
        return DeadLetters(self.connection)

    @property
    def api_keys(self) -> ApiKeys:
        """The API keys."""
        return ApiKeys(self)

    @property
    def audit_entries(self) -> AuditEntries:
        """The audit log."""
        return AuditEntries(self)

    @property
    def actions(self) -> Actions:
        """What can be allowed."""
        return Actions(self.connection)

    @property
    def roles(self) -> Roles:
        """The roles."""
        return Roles(self)

    @property
    def users(self) -> Users:
        """The people."""
        return Users(self)

    @property
    def assignments(self) -> Assignments:
        """Where the people work."""
        return Assignments(self)

    @property
    def invitations(self) -> Invitations:
        """The invitations."""
        return Invitations(self)

    @property
    def onboarding(self) -> OnboardingState:
        """What the actor has set up."""
        return OnboardingState(self)

    @property
    def mail(self) -> OutgoingMail:
        """The letters that this transaction sends."""
        return OutgoingMail(self.connection, self.outbox)

    @property
    def people(self) -> People:
        """What other nouns ask of the users."""
        return People(self)

    @property
    def accounts(self) -> Accounts:
        """What users prove themselves with: the actor's own, others' not."""
        return Accounts(self.connection, self.origin.address)

    @property
    def factors(self) -> SecondFactors:
        """Second factors while they are set up."""
        return SecondFactors(self.connection)

    @property
    def sessions(self) -> Sessions:
        """The sessions that have not ended."""
        return Sessions(self)

    @property
    def session_keeper(self) -> SessionKeeper:
        """How sessions begin and end."""
        return SessionKeeper(self.connection, self.origin.address, self.now)


async def add_audit_entry(
    connection: AsyncConnection, record: Record, origin: Origin, actor: Actor | None, *, user_id: UUID | None = None
) -> None:
    """Add one line to the audit log. Without an actor it is somebody who is signing in, `user_id` when it is known who."""
    values = audit_values(record, origin, actor, user_id=user_id)
    # Without RETURNING: not everybody who is written about may read it.
    await connection.execute(sa.insert(audit_entries).inline().values(**values))


def audit_values(record: Record, origin: Origin, actor: Actor | None, *, user_id: UUID | None = None) -> dict[str, Any]:
    """The row of one line of the audit log."""
    kind = "anonymous" if actor is None else "user" if actor.api_key_id is None else "api_key"
    return {
        "actor_kind": kind,
        "actor_id": user_id if actor is None else actor.user_id,
        "api_key_id": None if actor is None else actor.api_key_id,
        "address": origin.address,
        "correlation_id": origin.correlation_id,
        "action": record.action,
        "entity_type": record.entity_type,
        "entity_id": record.entity_id,
        "partner_company_id": record.partner_company_id,
        "organization_id": record.organization_id,
        "establishment_id": record.establishment_id,
        "before": record.before,
        "after": record.after,
    }
