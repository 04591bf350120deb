"""What a guest is told of his booking, and when.

Nothing happens at the moment of a change. `plan` compares what the guest should have been told by now with what was queued, on one
look at the booking, and says what is to be queued, said anew or taken back; the worker asks it as often as it likes. Four rules:

- Each is told once: of a type on a channel there is one for each thing that it is `about`.
- Nothing is told of a stay that is over, and after a cancellation nothing but the cancellation.
- A modification is told when what the guest was last told (or may have been) is not so any more. What has surely not left is said
  anew instead.
- Door codes are told when they are on their locks, and again when they are others.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from hse.domain.booking.model import LIVE, BookingStatus, Stay

NotificationType = Literal[
    "booking_created",
    "booking_confirmed",
    "check_in_instructions",
    "booking_modified",
    "booking_cancelled",
    "check_out_reminder",
]
NotificationChannel = Literal["email", "sms", "push"]
NotificationStatus = Literal["pending", "sent", "failed"]
TYPES: tuple[NotificationType, ...] = (
    "booking_created",
    "booking_confirmed",
    "check_in_instructions",
    "booking_modified",
    "booking_cancelled",
    "check_out_reminder",
)
CHANNELS: tuple[NotificationChannel, ...] = ("email", "sms", "push")

# These say when and where the stay is, so a later change makes them wrong.
SAY_THE_TERMS: frozenset[NotificationType] = frozenset({"booking_created", "booking_confirmed", "booking_modified"})
CONFIRMED: frozenset[BookingStatus] = frozenset({"confirmed", "in-progress"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What of a booking a guest goes by: another one of these is another booking to him."""

    guest_id: UUID
    area_id: UUID
    stay: Stay
    num_guests: int

    @property
    def fingerprint(self) -> str:
        """Says whether two of them are the same."""
        times = (self.stay.check_in.timestamp(), self.stay.check_out.timestamp())
        return fingerprint_of(self.guest_id, self.area_id, *times, self.num_guests)


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingNow:
    """What there is to be told of.

    `codes` says which door codes are on the locks, as a fingerprint; None while they may not be told. `remind_at` is when the guest
    is to be reminded of his check-out.
    """

    status: BookingStatus
    version: int
    terms: Terms
    codes: str | None
    remind_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A notification that was queued, in the order of `number`.

    `may_have_left`: it was sent, or nobody knows. `is_withdrawn`: it was taken back.
    """

    number: int
    type: NotificationType
    channel: NotificationChannel
    about: str
    terms: str
    status: NotificationStatus
    may_have_left: bool
    is_withdrawn: bool

    @property
    def is_fresh(self) -> bool:
        """Whether it is still to be sent, and surely was not: so it may yet say something else, or nothing."""
        return self.status == "pending" and not self.may_have_left

    @property
    def is_kept(self) -> bool:
        """Whether it stands: it was not taken back before it could leave."""
        return self.may_have_left or not self.is_withdrawn

    @property
    def counts_as_told(self) -> bool:
        """Whether the guest was told, or may have been, or would have been if it had been possible."""
        return self.is_kept and not self.is_fresh


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """A notification to be queued."""

    type: NotificationType
    channel: NotificationChannel
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done: queued, said anew with the present terms, taken back; and when to look again."""

    add: tuple[Addition, ...] = ()
    renew: tuple[int, ...] = ()
    withdraw: tuple[int, ...] = ()
    look_again_at: datetime | None = None


def fingerprint_of(*parts: object) -> str:
    """A short text that is the same for the same parts."""
    return hashlib.blake2b("\n".join(str(part) for part in parts).encode(), digest_size=16).hexdigest()


def plan(
    booking: BookingNow | None, queued: Sequence[Queued], channels: Sequence[NotificationChannel], now: datetime
) -> Plan:
    """What is to be done about the notifications of a booking; None is a deleted one."""
    withdraw = tuple(
        one.number for one in queued if one.status == "pending" and not may_stay(booking, one, queued, now)
    )
    if booking is None or now >= booking.terms.stay.check_out:
        return Plan(withdraw=withdraw)
    present = booking.terms.fingerprint
    stays = [one for one in queued if one.number not in withdraw]
    add = [
        Addition(type=kind, channel=channel, about=about)
        for kind, about in _wanted(booking, now)
        # On all channels at once: one that is chosen later does not repeat what the others have told.
        if not any((one.type, one.about) == (kind, about) and one.is_kept for one in queued)
        for channel in channels
    ]
    for channel in channels:
        on_it = [one for one in stays if one.channel == channel]
        if booking.status in LIVE and _is_outdated(queued, channel, present) and not _has_fresh_change(on_it):
            add.append(Addition(type="booking_modified", channel=channel, about=str(booking.version)))
    renew = tuple(one.number for one in stays if one.is_fresh and one.terms != present)
    waits_for = [booking.terms.stay.check_out] if add or any(one.status == "pending" for one in stays) else []
    if booking.status in LIVE and now < booking.remind_at < booking.terms.stay.check_out:
        waits_for.append(booking.remind_at)
    return Plan(add=tuple(add), renew=renew, withdraw=withdraw, look_again_at=min(waits_for, default=None))


def may_stay(booking: BookingNow | None, one: Queued, queued: Sequence[Queued], now: datetime) -> bool:
    """Whether a notification that is to be sent will still have something to say."""
    if booking is None or now >= booking.terms.stay.check_out:
        return False
    match one.type:
        case "booking_cancelled":
            return booking.status == "cancelled"
        case "booking_created":
            is_so = booking.status in LIVE
        case "booking_confirmed":
            is_so = booking.status in CONFIRMED
        case "booking_modified":
            present = booking.terms.fingerprint
            is_so = booking.status in LIVE and (one.may_have_left or _is_outdated(queued, one.channel, present))
        case "check_in_instructions":
            # None: they are not on the locks at this moment, and may come back.
            is_so = booking.status in CONFIRMED and booking.codes in (None, one.about)
        case _:
            is_so = booking.status == "in-progress"
    return is_so and not (one.type in SAY_THE_TERMS and one.may_have_left and one.terms != booking.terms.fingerprint)


def may_be_sent(booking: BookingNow | None, one: Queued, queued: Sequence[Queued], now: datetime) -> bool:
    """Whether a notification may leave at this moment. If not, it waits for the next look at its booking."""
    if booking is None or not may_stay(booking, one, queued, now):
        return False
    if one.type == "check_in_instructions":
        return booking.codes == one.about
    return one.type not in SAY_THE_TERMS or one.terms == booking.terms.fingerprint


def _wanted(booking: BookingNow, now: datetime) -> list[tuple[NotificationType, str]]:
    """What a guest should have been told by now, but for changes, and what each is about."""
    if booking.status == "cancelled":
        return [("booking_cancelled", "")]
    wanted: list[tuple[NotificationType, str]] = []
    if booking.status in LIVE:
        wanted.append(("booking_created", ""))
    if booking.status in CONFIRMED:
        wanted.append(("booking_confirmed", ""))
        if booking.codes is not None:
            wanted.append(("check_in_instructions", booking.codes))
    if booking.status == "in-progress" and now >= booking.remind_at:
        wanted.append(("check_out_reminder", ""))
    return wanted


def _is_outdated(queued: Sequence[Queued], channel: NotificationChannel, present: str) -> bool:
    """Whether what the guest was last told on this channel is not so any more."""
    told = [one for one in queued if one.channel == channel and one.type in SAY_THE_TERMS and one.counts_as_told]
    return bool(told) and max(told, key=lambda one: one.number).terms != present


def _has_fresh_change(queued: Sequence[Queued]) -> bool:
    return any(one.type == "booking_modified" and one.is_fresh for one in queued)
