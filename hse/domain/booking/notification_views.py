"""What people see of notifications and of the templates that they are made from."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from hse.domain.booking.notification_texts import Language
from hse.domain.booking.notifications import NotificationChannel, NotificationStatus, NotificationType
from hse.domain.policy import Reach


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingNotification:
    """Something that a guest was told of his booking, is to be told, or could not be; door codes in it are dots.

    `recipient`, `subject` and `message` are None until it was sent, for who may not read personal data, and once the guest is
    erased. `is_withdrawn`: before it could leave there was nothing more to say. `may_have_left`: it was sent, or nobody knows.
    """

    id: UUID
    organization_id: UUID
    establishment_id: UUID
    booking_id: UUID
    guest_id: UUID
    type: NotificationType
    channel: NotificationChannel
    status: NotificationStatus
    reason: str | None
    is_withdrawn: bool
    may_have_left: bool
    language: Language | None
    recipient: str | None = field(repr=False)
    subject: str | None = field(repr=False)
    message: str | None = field(repr=False)
    template_id: UUID | None
    template_version: int | None
    num_attempts: int
    next_attempt_at: datetime
    sent_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it."""
        return reach.has_site(self.organization_id, self.establishment_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationTemplate:
    """In which words an organisation has its guests told something on a channel, in a language, instead of in the built-in ones."""

    id: UUID
    organization_id: UUID
    type: NotificationType
    channel: NotificationChannel
    language: Language
    subject: str
    message: str
    version: int
    created_at: datetime
    updated_at: datetime

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it: the organisation as a whole."""
        return reach.has_site(self.organization_id, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationPreview:
    """What a guest would read, with sample data."""

    subject: str
    message: str
