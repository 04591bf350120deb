"""Dates and times as a guest reads them: in his language, by the clock of the place."""

from datetime import datetime
from zoneinfo import ZoneInfo

from babel.dates import format_date, format_time, get_timezone_name

UTC_NAMES = frozenset({"UTC", "Etc/UTC", "Etc/UCT", "Etc/Universal", "Etc/Zulu", "UCT", "Universal", "Zulu"})
# Before AM and PM; phones and mail programs show it as a box.
NARROW_SPACE = "\u202f"


def stay_values(check_in: datetime, check_out: datetime, timezone: str, language: str) -> dict[str, str]:
    """What templates may say of when a stay is."""
    zone = ZoneInfo(timezone)
    begins, ends = check_in.astimezone(zone), check_out.astimezone(zone)
    return {
        "check_in_date": _plain(format_date(begins, "full", locale=language)),
        "check_in_time": _plain(format_time(begins, "short", tzinfo=zone, locale=language)),
        "check_out_date": _plain(format_date(ends, "full", locale=language)),
        "check_out_time": _plain(format_time(ends, "short", tzinfo=zone, locale=language)),
        "num_nights": str((ends.date() - begins.date()).days),
        "time_zone": _name(zone, begins, timezone, language),
    }


def _name(zone: ZoneInfo, begins: datetime, timezone: str, language: str) -> str:
    """That of the zone in general: the clock may be put forward or back in the middle of a stay."""
    return _plain(get_timezone_name(begins if timezone in UTC_NAMES else zone, locale=language))


def _plain(text: str) -> str:
    return text.replace(NARROW_SPACE, " ")
