"""What may be read of devices."""

from dataclasses import replace
from uuid import UUID

from hse.domain.devices.model import Device
from hse.domain.devices.ports import DevicesWork
from hse.domain.paging import Page, PageQuery
from hse.domain.work import seen


async def devices(work: DevicesWork, query: PageQuery) -> Page[Device]:
    """A page of the devices. Raises `Forbidden`, `Invalid`."""
    return await work.devices.page(work.actor.require("read_device"), query)


async def device(work: DevicesWork, device_id: UUID) -> Device:
    """One device. Raises `Forbidden`, `NotFound`."""
    return await seen(work.devices, work.actor.require("read_device"), device_id)


async def children(work: DevicesWork, gateway_id: UUID, query: PageQuery) -> Page[Device]:
    """A page of the devices that a gateway speaks for and the actor may see. Raises `Forbidden`, `NotFound`, `Invalid`."""
    gateway = await device(work, gateway_id)
    return await devices(work, replace(query, filters={**query.filters, "gateway_id": gateway.id}))
