"""Who is tried at every operation, and where the thing stands that the operation is about."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from tests.api.world import Person, Site, Tenant, World

ACTORS: dict[str, Callable[[World], Person | None]] = {
    "root": lambda world: world.root,
    "partner": lambda world: world.partner,
    "chief": lambda world: world.chief,
    "admin": lambda world: world.admin,
    "user": lambda world: world.user,
    "custom": lambda world: world.custom,
    "nobody": lambda _: None,
}

# The admin, the user and the holder of the custom role are assigned to `own` and to nothing else; the chief and the partner reach
# `unassigned`, too; `foreign` is another partner's, `direct` is looked after by the operator.
PLACES = ("own", "unassigned", "foreign", "direct")


@dataclass(frozen=True)
class Place:
    """Where the thing stands that an operation is about."""

    name: str
    world: World
    tenant: Tenant
    site: Site

    @property
    def is_foreign(self) -> bool:
        """Whether it is another tenant's."""
        return self.name in ("foreign", "direct")

    @property
    def partner_company_id(self) -> UUID:
        """The partner company that looks after it; for what none looks after, the other one."""
        return self.world.other_partner_company if self.is_foreign else self.world.partner_company

    @property
    def worker(self) -> Person:
        """Somebody who works there, other than those who try; nobody does at `direct`, so it is another tenant's chief."""
        return {"own": self.world.second_user, "unassigned": self.world.other_site_admin}.get(
            self.name, self.world.other_chief
        )

    @property
    def role_id(self) -> UUID:
        """A custom role that is bound to it: to the organisation, for `unassigned` to the establishment."""
        world = self.world
        return {
            "own": world.custom_role,
            "unassigned": world.second_site_role,
            "foreign": world.foreign_role,
            "direct": world.direct_role,
        }[self.name]


def place(world: World, name: str) -> Place:
    """One of `PLACES`."""
    tenant = {"foreign": world.other_tenant, "direct": world.direct_tenant}.get(name, world.tenant)
    return Place(name, world, tenant, tenant.sites[1 if name == "unassigned" else 0])
