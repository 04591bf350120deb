"""Alarms of devices."""

import strawberry

from hse.api.graphql.connections import connection, reference, single
from hse.api.graphql.entities import ALARMS, DEVICES, ESTABLISHMENTS, ORGANIZATIONS
from hse.api.graphql.types import mirrors
from hse.domain.alerts import model, queries


@mirrors(model.Alarm)
class Alarm:
    """One time that an alarm of a device was on."""

    organization = reference(ORGANIZATIONS, "organization_id")
    establishment = reference(ESTABLISHMENTS, "establishment_id")
    device = reference(DEVICES, "device_id")


@strawberry.type
class AlertsQuery:
    """What may be read of the noun."""

    alarm = single(ALARMS, queries.alarm)
    alarms = connection(ALARMS, "Those that you may see, the newest first.")
