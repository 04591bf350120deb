"""The watch for devices that are overdue."""

import logging
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import sqlalchemy as sa

from hse.adapters.postgres.overdue_devices import find_silent, tell_of_overdue, watch_alone

LOOK_SECONDS = 30.0

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class OverdueWatch:
    """Raises an alarm for each device that is overdue, and ends it when the device speaks again. Any number of workers may do this.

    Of a device it tells at the second look in a row that finds it silent: what was said while the database was away waited in the
    journals, and is stored by then.
    """

    engine: sa.Engine
    _suspects: frozenset[UUID] = frozenset()

    def watch_until(self, stopping: threading.Event) -> None:
        """Look twice a minute, until told to stop; a database that is away is waited for."""
        while not stopping.wait(LOOK_SECONDS):
            try:
                self.look(datetime.now(UTC))
            except Exception as error:
                self._suspects = frozenset()
                is_away = isinstance(error, sa.exc.DBAPIError)
                logger.warning("overdue devices are not looked for: %s", type(error).__name__, exc_info=not is_away)

    def look(self, now: datetime) -> None:
        """Look once. Raises SQLAlchemy's errors."""
        with self.engine.begin() as connection:
            if not watch_alone(connection):
                return
            silent = find_silent(connection, now)
            overdue = [one for one in silent if one.device_id in self._suspects]
            num_heard = tell_of_overdue(connection, overdue, now)
        self._suspects = frozenset(one.device_id for one in silent)
        if overdue or num_heard:
            logger.info("devices that are overdue: new=%s heard_again=%s", len(overdue), num_heard)
