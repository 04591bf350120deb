"""Provisioning keys in the database. What becomes of a device that comes with one is in `hse_provision_device`, beside them."""

import secrets
from collections.abc import Mapping
from typing import Any, ClassVar

from hse.adapters.postgres.reach import SiteScope
from hse.adapters.postgres.stores import TableStore
from hse.adapters.postgres.tables import provisioning_keys
from hse.adapters.tokens import hash_of, new_secret
from hse.domain.devices.provisioning_keys import IssuedProvisioningKey, ProvisioningKey

# Of the public half, which nobody need guess: it only must not be another one's.
KEY_BYTES = 12


class ProvisioningKeys(TableStore[ProvisioningKey]):
    """The keys. The secret goes in as a hash and never comes out."""

    entity = "provisioning_key"
    table = provisioning_keys
    view = ProvisioningKey
    scope = SiteScope(provisioning_keys.c.organization_id, provisioning_keys.c.establishment_id)
    sorts = ("created_at", "name", "updated_at")
    searched = ("name", "key")
    constraints: ClassVar[Mapping[str, str]] = {
        "provisioning_keys_establishment_is_of_the_organization": "establishment_id",
        "provisioning_keys_profile_is_of_the_organization": "profile_id",
    }

    async def issue(self, values: Mapping[str, Any]) -> IssuedProvisioningKey:
        """Add a key with new halves. Raises `Taken`, `Invalid`."""
        secret = new_secret()
        key = {"key": secrets.token_urlsafe(KEY_BYTES), "secret_hash": hash_of(secret)}
        after = await self.add({**values, **key})
        return IssuedProvisioningKey(id=after.id, key=after.key, secret=secret)
