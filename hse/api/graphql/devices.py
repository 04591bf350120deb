"""Devices, the gateways that speak for some of them, and the tokens that the others connect with."""

from typing import Any

import strawberry

from hse.api.graphql.connections import connection, list_of, reference, single
from hse.api.graphql.context import Asked, context_of
from hse.api.graphql.dead_letters import DeadLetterSummary, resolve_summary
from hse.api.graphql.entities import (
    ALARMS,
    AREAS,
    DEVICE_COMMANDS,
    DEVICE_PROFILES,
    DEVICES,
    ESTABLISHMENTS,
    ORGANIZATIONS,
)
from hse.api.graphql.mutations import acts, acts_once, changes, creates
from hse.api.graphql.telemetry import DeviceState
from hse.api.graphql.types import mirrors
from hse.api.rest import devices as bodies
from hse.domain.devices import commands, model, queries


async def resolve_state(root: strawberry.Parent[Any], info: Asked) -> Any:
    """How a device is now."""
    return await context_of(info).loaders.state(root.id)


@mirrors(model.Device)
class Device:
    """A device."""

    state = strawberry.field(
        resolver=resolve_state, graphql_type=DeviceState | None, description="Null when you may not see it."
    )
    dead_letter_summary = strawberry.field(
        resolver=resolve_summary,
        graphql_type=DeadLetterSummary | None,
        description="How much of what it sent could not be understood or stored.",
    )

    organization = reference(ORGANIZATIONS, "organization_id")
    establishment = reference(ESTABLISHMENTS, "establishment_id")
    area = reference(AREAS, "area_id")
    gateway = reference(DEVICES, "gateway_id")
    children = list_of(DEVICES, "gateway_id")
    profile = reference(DEVICE_PROFILES, "profile_id")
    alarms = list_of(ALARMS, "device_id")
    commands = list_of(DEVICE_COMMANDS, "device_id")


@mirrors(model.IssuedToken)
class IssuedToken:
    """A device's token, told this once."""


@strawberry.type
class DevicesQuery:
    """What may be read of the noun."""

    device = single(DEVICES, queries.device)
    devices = connection(DEVICES)


@strawberry.type
class DevicesMutation:
    """What may be done to the noun."""

    create_device = creates(DEVICES, bodies.NewDevice, commands.CreateDevice, commands.create_device)
    change_device = changes(DEVICES, bodies.DeviceChange, commands.ChangeDevice, commands.change_device)
    delete_device = acts(commands.delete_device)
    issue_device_token = acts_once(commands.issue_token, IssuedToken)
    revoke_device_token = acts(commands.revoke_token)
