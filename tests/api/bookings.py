"""What tests of bookings ask of the api."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from tests.api.conftest import Client
from tests.api.world import Person, Site

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
# A moment in the far future that is no round number of anything.
SOON = datetime.now(UTC).replace(microsecond=0) + 40 * DAY


def stay(check_in: datetime = SOON, lasting: timedelta = DAY) -> dict[str, str]:
    """A period as a body has it."""
    return {"check_in": check_in.isoformat(), "check_out": (check_in + lasting).isoformat()}


async def done(api: Client, method: str, path: str, person: Person, *, body: Any = None, **params: Any) -> Any:
    """What a request that must succeed is answered."""
    answer = await api.request(method, f"/api/v1/{path}", headers=person.headers, json=body, params=params)
    assert answer.status_code < 300, (method, path, answer.text)
    return answer.json() if answer.content else None


async def refused(api: Client, method: str, path: str, person: Person, *, body: Any = None, **params: Any) -> Any:
    """The problem that a request is refused with: its status and code, and itself."""
    answer = await api.request(method, f"/api/v1/{path}", headers=person.headers, json=body, params=params)
    assert answer.status_code >= 400, (method, path, answer.text)
    problem = answer.json()
    return answer.status_code, problem["code"], problem


async def a_guest(api: Client, person: Person, site: Site, **more: Any) -> UUID:
    """Register a guest at a site."""
    body = {"first_name": "Carmen", "last_name": "Rojas", "establishment_id": str(site.id), **more}
    return UUID((await done(api, "POST", "guests", person, body=body))["id"])


async def a_booking(api: Client, person: Person, site: Site, guest_id: UUID, **more: Any) -> Any:
    """Book a site's area."""
    body = {"area_id": str(site.area_id), "guest_id": str(guest_id), **stay(), **more}
    return await done(api, "POST", "bookings", person, body=body)
