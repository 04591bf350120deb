"""Which time the maintenance goes by. What has expired is gone for good, and what makes it expire is a clock.

Two clocks that differ are both doubted: the worker's and the database's. One machine has one clock, so a leap ahead is doubted,
too: all goes on as of the time that was believed last, until the clock has stood by it for days of running. So a clock that was
wrong for a while costs nothing once it is right again, and a machine that was switched off for months goes on by itself.

On TimescaleDB the server's own jobs drop events, by the server's clock alone: there this holds up the rest.
"""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from hse.failure import Failure

SKEW_MAX = timedelta(minutes=5)
LEAP_MAX = timedelta(days=2)
# Over a weekend nobody may look at the log.
DOUBTED_FOR = timedelta(days=3)
# A worker looks every minute. What lies between two looks beyond this was no running.
LOOK_MAX = timedelta(minutes=5)

READ = sa.text(
    "select coalesce(believed_at, :now) as believed_at, coalesce(looked_at, :now) as looked_at, doubted_for"
    " from maintenance_clock for update"
).bindparams(sa.bindparam("now", type_=sa.DateTime(timezone=True)))
WRITE = sa.text(
    "update maintenance_clock set believed_at = :believed_at, looked_at = :looked_at, doubted_for = :doubted_for"
)


class ClocksDiffer(Failure):
    """The worker's clock and the database's are too far apart to say what has expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """What is remembered: the latest time that was believed, the last one that the clock said, how long it ran in doubt."""

    believed_at: datetime
    looked_at: datetime
    doubted_for: timedelta = timedelta(0)

    @property
    def is_doubted(self) -> bool:
        """Whether the clock said more than is believed."""
        return self.looked_at > self.believed_at


def looked(clock: Clock, now: datetime) -> Clock:
    """What is remembered after the clock said `now`. One that goes back is waited for: nothing expires too early by it."""
    if now <= clock.believed_at + LEAP_MAX:
        return Clock(believed_at=max(now, clock.believed_at), looked_at=now)
    ran_for = min(max(now - clock.looked_at, timedelta(0)), LOOK_MAX)
    doubted_for = clock.doubted_for + ran_for
    if doubted_for >= DOUBTED_FOR:
        return Clock(believed_at=now, looked_at=now)
    return Clock(believed_at=clock.believed_at, looked_at=now, doubted_for=doubted_for)


def look(engine: sa.Engine, now: datetime) -> Clock:
    """Remember that the clock says `now`, and say what to believe."""
    with engine.begin() as connection:
        clock = looked(Clock(**connection.execute(READ, {"now": now}).one()._mapping), now)
        connection.execute(WRITE, asdict(clock))
    return clock


def agreed_now(engine: sa.Engine, now: datetime) -> datetime:
    """The earlier of the worker's `now` and the database's. Raises `ClocksDiffer`."""
    with engine.begin() as connection:
        of_database: datetime = connection.execute(sa.text("select clock_timestamp()")).scalar_one()
    if abs(of_database - now) > SKEW_MAX:
        raise ClocksDiffer(
            f"nothing is maintained: the worker's clock says {now:%Y-%m-%d %H:%M:%S} and the database's "
            f"{of_database:%Y-%m-%d %H:%M:%S} UTC; set them right, or have both follow a time server"
        )
    return min(now, of_database)
