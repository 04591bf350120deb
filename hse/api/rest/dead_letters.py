"""What devices sent that could not be understood or stored."""

from uuid import UUID

from litestar import Router, get
from litestar.params import FromPath

from hse.api.acting import Acts
from hse.api.paging import Cursor, Limit
from hse.domain.paging import PAGE_LIMIT, Page, PageQuery
from hse.domain.telemetry import dead_letters as letters
from hse.domain.telemetry.dead_letters import DeadLetterSummary, DeviceDeadLetter


@get("/devices/{device_id:uuid}/dead-letters/summary")
async def get_dead_letter_summary(acting: Acts, device_id: FromPath[UUID]) -> DeadLetterSummary:
    """Read how much of what a device sent could not be understood or stored, and why the last of it.

    The 1000 newest are counted. What a gateway sent in a child's name is the gateway's.
    """
    return await acting.read(lambda work: letters.summary(work, device_id))


@get("/devices/{device_id:uuid}/dead-letters")
async def list_dead_letters(
    acting: Acts, device_id: FromPath[UUID], limit: Limit = PAGE_LIMIT, cursor: Cursor = None
) -> Page[DeviceDeadLetter]:
    """List what a device sent that could not be understood or stored, the newest first, without what an operator discarded."""
    query = PageQuery(limit=limit, cursor=cursor)
    return await acting.read(lambda work: letters.dead_letters(work, device_id, query))


router = Router(path="/", tags=["telemetry"], route_handlers=[get_dead_letter_summary, list_dead_letters])
