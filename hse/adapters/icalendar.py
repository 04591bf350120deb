"""Calendars as RFC 5545 writes them."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from icalendar import Calendar, Event

from hse.adapters.postgres.booking_calendars import Feed, FeedStay

PRODUCT = "-//HSE//bookings//EN"
# Programs ask again and again for what has not changed.
CALENDARS_REMEMBERED_MAX = 16
# A long calendar takes most of a second: one at a time, beside the event loop.
WRITER = ThreadPoolExecutor(1, "calendars")


async def written(feed: Feed) -> bytes:
    """A calendar, once it is its turn to be written."""
    return await asyncio.get_running_loop().run_in_executor(WRITER, calendar_of, feed)


@lru_cache(CALENDARS_REMEMBERED_MAX)
def calendar_of(feed: Feed) -> bytes:
    """An area's stays, in UTC. It holds when, and nothing of whom: a link is passed on more easily than one thinks."""
    calendar = Calendar()
    calendar.add("prodid", PRODUCT)
    calendar.add("version", "2.0")
    calendar.add("method", "PUBLISH")
    calendar.add("x-wr-calname", f"{feed.establishment_name} · {feed.area_name}")
    calendar.add("x-wr-timezone", feed.timezone)
    for stay in feed.stays:
        calendar.add_component(_event_of(stay))
    return bytes(calendar.to_ical())


def _event_of(stay: FeedStay) -> Event:
    event = Event()
    event.add("uid", f"{stay.booking_id}@hse")
    event.add("dtstamp", stay.updated_at)
    event.add("dtstart", stay.check_in)
    event.add("dtend", stay.check_out)
    event.add("sequence", stay.version)
    event.add("summary", "Reserved" if stay.status == "pending" else "Booked")
    event.add("status", "TENTATIVE" if stay.status == "pending" else "CONFIRMED")
    event.add("transp", "OPAQUE")
    return event
