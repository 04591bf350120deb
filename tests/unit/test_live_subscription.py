"""What one reader of a live stream is still to be told: bounded, coalesced, and never more than he may see."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from hse.adapters.live.subscription import (
    BATCH_MAX,
    EVENTS_WAITING_MAX,
    STATE_SECONDS,
    STATES_WAITING_MAX,
    Change,
    LiveScope,
    Subscription,
)
from hse.domain.policy import EVERYWHERE, NOWHERE, Reach
from hse.domain.telemetry.live import (
    DevicePlace,
    Ended,
    LiveAlarm,
    LiveEvent,
    LiveFilter,
    LiveState,
    Missed,
    Sources,
    Told,
)

START = datetime(2030, 1, 1, tzinfo=UTC)
ORGANIZATION, SITE, OTHER_SITE = uuid4(), uuid4(), uuid4()
HERE = DevicePlace(organization_id=ORGANIZATION, establishment_id=SITE)
THERE = DevicePlace(organization_id=ORGANIZATION, establishment_id=OTHER_SITE)
ALL = LiveScope(devices=EVERYWHERE, reports=EVERYWHERE, alarms=EVERYWHERE)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def event(device_id: UUID, number: int, *, event_type: str = "temperature", minute: int = 0) -> Change:
    told = LiveEvent(
        device_id=device_id,
        type=event_type,
        value=float(number),
        unit=None,
        time=START + timedelta(minutes=minute),
        received_at=None,
    )
    state = LiveState(device_id=device_id, last_event=told)
    return Change(device_id=device_id, node="n", number=number, state=state, event=told)


def alarm(place: DevicePlace) -> LiveAlarm:
    return LiveAlarm(
        alarm_id=uuid4(),
        organization_id=place.organization_id,
        establishment_id=place.establishment_id,
        device_id=uuid4(),
        type="smoke",
        severity="major",
        state="active",
        raised_at=START,
        cleared_at=None,
    )


def stream(clock: Clock, *kinds: str, scope: LiveScope = ALL, **wanted: object) -> Subscription:
    return Subscription(LiveFilter(kinds=frozenset(kinds), **wanted), scope, clock)  # type: ignore[arg-type]


async def told(subscription: Subscription) -> list[Told]:
    """Everything that there is to tell without waiting."""
    found: list[Told] = []
    while (batch := await subscription.next_batch(0)) is not None:
        # Beside what is told of the stream itself.
        assert len(batch.told) <= BATCH_MAX + 2
        found += batch.told
        if batch.is_caught_up:
            break
    return found


def values(found: list[Told]) -> list[float | None]:
    events = [one.last_event if isinstance(one, LiveState) else one for one in found]
    return [one.value for one in events if isinstance(one, LiveEvent)]


async def test_of_the_states_of_a_device_the_newest_is_told_twice_a_second(clock: Clock) -> None:
    subscription, device = stream(clock, "state"), uuid4()
    for number in range(50):
        subscription.offer_change(event(device, number), HERE)
    assert values(await told(subscription)) == [49.0]
    subscription.offer_change(event(device, 50), HERE)
    assert await told(subscription) == []
    clock.seconds += STATE_SECONDS
    assert values(await told(subscription)) == [50.0]


async def test_a_round_of_states_tells_each_device_once_however_long_it_takes(clock: Clock) -> None:
    subscription, devices = stream(clock, "state"), [uuid4() for _ in range(2 * BATCH_MAX)]
    for device in devices:
        subscription.offer_change(event(device, 0), HERE)
    first = await subscription.next_batch(0)
    assert first is not None
    assert not first.is_caught_up
    for device in devices:
        subscription.offer_change(event(device, 1), HERE)
    second = await subscription.next_batch(0)
    assert second is not None
    assert values(second.told) == [1.0] * BATCH_MAX, "what is not told yet is told as it is now"
    assert await subscription.next_batch(0) is None
    clock.seconds += STATE_SECONDS
    assert len(await told(subscription)) == BATCH_MAX


async def test_a_state_is_the_event_with_the_newest_time_and_the_connection_as_it_was_told_last(clock: Clock) -> None:
    subscription, device = stream(clock, "state"), uuid4()
    subscription.offer_change(event(device, 1, minute=5), HERE)
    subscription.offer_change(
        Change(device_id=device, node="n", number=2, state=LiveState(device_id=device, is_connected=False)), HERE
    )
    subscription.offer_change(event(device, 3, minute=2), HERE)
    (state,) = await told(subscription)
    assert isinstance(state, LiveState)
    assert state.is_connected is False
    assert state.last_event is not None
    assert state.last_event.value == 1.0


async def test_who_reads_too_slowly_keeps_the_newest_events_and_is_told_how_many_he_missed(clock: Clock) -> None:
    subscription, device = stream(clock, "event"), uuid4()
    for number in range(EVENTS_WAITING_MAX + 5):
        subscription.offer_change(event(device, number), HERE)
    assert subscription.num_waiting == EVENTS_WAITING_MAX
    found = await told(subscription)
    assert found[0] == Missed(num_missed=5)
    assert values(found) == [float(number) for number in range(5, EVENTS_WAITING_MAX + 5)]
    assert await told(subscription) == []


async def test_states_are_bounded_too(clock: Clock) -> None:
    subscription = stream(clock, "state")
    for number in range(STATES_WAITING_MAX + 7):
        subscription.offer_change(event(UUID(int=number), number), HERE)
    assert subscription.num_waiting == STATES_WAITING_MAX
    assert (await told(subscription))[0] == Missed(num_missed=7)


async def test_what_nobody_counted_is_missed_without_a_number(clock: Clock) -> None:
    subscription = stream(clock, "event")
    subscription.offer_missed(3)
    subscription.offer_missed(None)
    subscription.offer_missed(2)
    assert await told(subscription) == [Missed(num_missed=None)]
    subscription.offer_missed(2)
    assert await told(subscription) == [Missed(num_missed=2)]


async def test_a_filter_lets_through_what_was_asked_for(clock: Clock) -> None:
    device, other = uuid4(), uuid4()
    of_device = stream(clock, "event", device_ids=frozenset([device]))
    of_type = stream(clock, "event", event_types=frozenset(["humidity"]))
    of_site = stream(clock, "event", "alarm", establishment_id=SITE)
    for subscription in (of_device, of_type, of_site):
        subscription.offer_change(event(device, 1), HERE)
        subscription.offer_change(event(other, 2, event_type="humidity"), THERE)
        subscription.offer_alarm(alarm(HERE))
        subscription.offer_alarm(alarm(THERE))
    assert values(await told(of_device)) == [1.0]
    assert values(await told(of_type)) == [2.0]
    found = await told(of_site)
    assert values(found) == [1.0]
    assert [one.establishment_id for one in found if isinstance(one, LiveAlarm)] == [SITE]


async def test_devices_and_alarms_are_seen_where_their_own_permission_reaches(clock: Clock) -> None:
    here = Reach(establishment_ids=frozenset([SITE]))
    subscription = stream(clock, "event", "alarm", scope=LiveScope(devices=EVERYWHERE, reports=here, alarms=NOWHERE))
    subscription.offer_change(event(uuid4(), 1), HERE)
    subscription.offer_change(event(uuid4(), 2), THERE)
    subscription.offer_alarm(alarm(HERE))
    found = await told(subscription)
    assert values(found) == [1.0]
    assert len(found) == 1


async def test_while_its_scope_is_in_doubt_it_tells_nothing_and_then_what_is_still_within(clock: Clock) -> None:
    subscription = stream(clock, "state", "event", "alarm")
    subscription.offer_change(event(uuid4(), 1), HERE)
    subscription.doubt()
    subscription.offer_change(event(uuid4(), 2), THERE)
    subscription.offer_alarm(alarm(HERE))
    assert await told(subscription) == []
    there = Reach(establishment_ids=frozenset([OTHER_SITE]))
    subscription.rescope(LiveScope(devices=there, reports=EVERYWHERE, alarms=there))
    found = await told(subscription)
    assert values(found) == [2.0, 2.0]
    assert len(found) == 2


async def test_an_end_is_the_last_thing_that_is_told(clock: Clock) -> None:
    subscription = stream(clock, "event")
    subscription.offer_sources(Sources(num_nodes=2, num_away=1))
    assert await told(subscription) == [Sources(num_nodes=2, num_away=1)]
    subscription.offer_change(event(uuid4(), 1), HERE)
    subscription.end("session-ended")
    subscription.end("shutting-down")
    assert await told(subscription) == [Ended(reason="session-ended")]
    assert subscription.has_ended
