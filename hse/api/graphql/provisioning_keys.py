"""Provisioning keys: how devices get in by themselves."""

import strawberry

from hse.api.bodies import given
from hse.api.graphql.connections import connection, reference, single
from hse.api.graphql.entities import DEVICE_PROFILES, ESTABLISHMENTS, ORGANIZATIONS, PROVISIONING_KEYS
from hse.api.graphql.mutations import acts, changes, makes
from hse.api.graphql.types import mirrors
from hse.api.rest import provisioning_keys as bodies
from hse.domain.devices import provisioning_keys as desk


@mirrors(desk.ProvisioningKey)
class ProvisioningKey:
    """A key."""

    organization = reference(ORGANIZATIONS, "organization_id")
    establishment = reference(ESTABLISHMENTS, "establishment_id")
    profile = reference(DEVICE_PROFILES, "profile_id")


@mirrors(desk.IssuedProvisioningKey)
class IssuedProvisioningKey:
    """Both halves of a key."""


@strawberry.type
class ProvisioningKeysQuery:
    """What may be read of provisioning keys."""

    provisioning_key = single(PROVISIONING_KEYS, desk.provisioning_key)
    provisioning_keys = connection(PROVISIONING_KEYS)


@strawberry.type
class ProvisioningKeysMutation:
    """What may be done with provisioning keys."""

    create_provisioning_key = makes(
        IssuedProvisioningKey,
        bodies.NewProvisioningKey,
        lambda wanted, _: desk.CreateProvisioningKey(**given(wanted)),
        desk.create_provisioning_key,
    )
    change_provisioning_key = changes(
        PROVISIONING_KEYS, bodies.ProvisioningKeyChange, desk.ChangeProvisioningKey, desk.change_provisioning_key
    )
    delete_provisioning_key = acts(desk.delete_provisioning_key)
