"""`hse migrate`."""

from hse.adapters.postgres.migrate import current
from hse.cli.options import DataDir, settings_with
from hse.cli.place import place_of
from hse.wiring.machine import migrate as bring_to_newest


def migrate(data_dir: DataDir = None) -> None:
    """Bring the database to the newest schema; nothing to do the second time."""
    place = place_of(data_dir)
    bring_to_newest(settings_with(data_dir), place.database_url)
    print(f"the database is at revision {current(place.database_url)}")
