"""How many streams or sockets somebody holds open: some each, so that nobody takes the room of all others."""

from collections import Counter
from uuid import UUID

from hse.domain.telemetry.live import TooManyStreams

RETRY_AFTER_SECONDS = 10


class Shares:
    """Counts what users hold, at most `of_user_max` each and `all_max` together."""

    def __init__(self, *, of_user_max: int, all_max: int | None = None) -> None:
        self._of_user_max = of_user_max
        self._all_max = all_max
        self._num_of_user: Counter[UUID] = Counter()
        self._num_all = 0

    def take(self, user_id: UUID) -> None:
        """A user holds one more. Raises `TooManyStreams`."""
        if self._num_of_user[user_id] >= self._of_user_max:
            raise TooManyStreams(self._of_user_max, RETRY_AFTER_SECONDS)
        if self._all_max is not None and self._num_all >= self._all_max:
            raise TooManyStreams(self._all_max, RETRY_AFTER_SECONDS)
        self._num_of_user[user_id] += 1
        self._num_all += 1

    def give_back(self, user_id: UUID) -> None:
        """A user holds one less."""
        self._num_all -= 1
        self._num_of_user[user_id] -= 1
        if self._num_of_user[user_id] <= 0:
            del self._num_of_user[user_id]
