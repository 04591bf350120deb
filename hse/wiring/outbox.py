"""Who handles the relevant events, and the loop that hands them out."""

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from hse.adapters.postgres.alarms import record_alarms
from hse.adapters.postgres.command_queues import apply_command_results
from hse.adapters.postgres.device_attributes import keep_reports
from hse.adapters.postgres.door_code_alarms import record_usages
from hse.adapters.postgres.event_outbox import (
    Handler,
    OutboxState,
    claim_events,
    drop_unknown,
    is_transient,
    outbox_state,
    put_off,
    remove_events,
)
from hse.domain.relevant import RelevantEvent

# Handlers by type of event; a module that must act on events of devices adds its own. What has none is removed after some minutes.
HANDLERS: Mapping[str, Handler] = {
    "alarm": record_alarms,
    "attributes_reported": keep_reports,
    "command_result": apply_command_results,
    "code_used": record_usages,
    "code_rejected": record_usages,
}

POLL_SECONDS = 0.5
# Looked at now and then only: nobody counts a queue twice a second.
POLLS_PER_LOOK = 20
AWAY_SECONDS = 2.0

logger = logging.getLogger(__name__)


class OutboxCounts:
    """What was done with events, by (type, outcome): handled, retried, parked, unknown. Metrics read it."""

    def __init__(self) -> None:
        self.events: Counter[tuple[str, str]] = Counter()
        self.state: OutboxState | None = None

    def outcomes(self) -> dict[str, float]:
        """How many events became what."""
        found: Counter[str] = Counter()
        for (_, outcome), count in self.events.copy().items():
            found[outcome] += count
        return {outcome: float(count) for outcome, count in found.items()}

    def sizes(self) -> dict[str, float]:
        """How much waited when it was looked at last."""
        state = self.state
        if state is None:
            return {}
        return {"waiting": state.num_waiting, "oldest_seconds": state.oldest_seconds, "parked": state.num_parked}


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDispatcher:
    """Hands relevant events to their handlers. Any number may work at once."""

    engine: sa.Engine
    handlers: Mapping[str, Handler]
    counts: OutboxCounts = field(default_factory=OutboxCounts)

    def dispatch_until(self, stopping: threading.Event) -> None:
        """Look for events twice a second, until told to stop; a database that is away, or cannot now, is waited for."""
        wait, num_polls = 0.0, 0
        while not stopping.wait(wait):
            try:
                if num_polls % POLLS_PER_LOOK == 0:
                    self.look()
                num_polls += 1
                wait = 0.0 if self.dispatch_batch() > 0 else POLL_SECONDS
            except sa.exc.DBAPIError as error:
                logger.warning("relevant events wait for the database: %s", type(error).__name__)
                wait = AWAY_SECONDS
            except Exception:
                # A defect outside of every handler; the events are as they were.
                logger.exception("relevant events could not be handed out")
                wait = AWAY_SECONDS

    def dispatch_batch(self) -> int:
        """Hand out what is due, a batch at most; returns how many events it was. Raises SQLAlchemy's errors."""
        done: Counter[tuple[str, str]] = Counter()
        with self.engine.begin() as connection:
            events = claim_events(connection, list(self.handlers))
            by_type: dict[str, list[RelevantEvent]] = {}
            for event in events:
                by_type.setdefault(event.event_type, []).append(event)
            handled: list[RelevantEvent] = []
            for event_type, its_events in by_type.items():
                refused = self._handle(connection, self.handlers[event_type], its_events)
                for event in its_events:
                    error = refused.get(event.id)
                    outcome = "handled" if error is None else self._put_off(connection, event, error)
                    done[event_type, outcome] += 1
                handled += [event for event in its_events if event.id not in refused]
            if handled:
                remove_events(connection, handled)
        self.counts.events += done
        return len(events)

    def look(self) -> None:
        """Remove what nobody handles, and see how much waits."""
        with self.engine.begin() as connection:
            self.counts.events += Counter({("other", "unknown"): drop_unknown(connection, list(self.handlers))})
            self.counts.state = outbox_state(connection)

    def _handle(
        self, connection: sa.Connection, handler: Handler, events: Sequence[RelevantEvent]
    ) -> dict[int, Exception]:
        """Hand events over, one by one when they are refused together; returns the ids of those refused, and why."""
        error = self._try(connection, handler, events)
        if error is None:
            return {}
        if len(events) == 1:
            return {events[0].id: error}
        refused = {}
        for event in events:
            if (error := self._try(connection, handler, [event])) is not None:
                refused[event.id] = error
        return refused

    def _try(self, connection: sa.Connection, handler: Handler, events: Sequence[RelevantEvent]) -> Exception | None:
        """What the handler raised, undone; None when it did its work. Raises when the database cannot: that is no refusal."""
        savepoint = connection.begin_nested()
        try:
            handler(connection, events)
        except sa.exc.DBAPIError as error:
            if is_transient(error) or connection.closed:
                raise
            savepoint.rollback()
            return error
        except Exception as error:
            savepoint.rollback()
            return error
        savepoint.commit()
        return None

    def _put_off(self, connection: sa.Connection, event: RelevantEvent, error: Exception) -> str:
        # The first line: what a driver adds is the statement with everything in it.
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        is_parked = put_off(connection, event, reason)
        told = (event.event_type, event.id, event.device_id, event.attempts + 1, reason)
        if is_parked:
            logger.error("relevant event parked: type=%s id=%s device=%s attempts=%s reason=%s", *told)
            return "parked"
        logger.warning("relevant event tried again later: type=%s id=%s device=%s attempts=%s reason=%s", *told)
        return "retried"
