"""Who is tried at every operation, and where the things stand that the operations are about."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from tests.api.booked import (
    give_calendar,
    join,
    make_lock,
    new_booking,
    new_door_code,
    new_guest,
    new_notification,
    new_template,
)
from tests.api.profiled import (
    give_profile,
    new_claim,
    new_profile,
    new_provisioning_key,
    new_waiting_device,
)
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


@dataclass(frozen=True, kw_only=True)
class Place:
    """An establishment with one thing of every kind that an operation may be about."""

    name: str
    world: World
    tenant: Tenant
    site: Site
    # Within the site's area.
    part_id: UUID
    # In that part; the site's device speaks for it.
    child_id: UUID
    # What the child is; and a profile that no device has.
    profile_id: UUID
    spare_profile_id: UUID
    # With which devices of that kind get in at the site.
    provisioning_key_id: UUID
    # Of the organisation, standing nowhere yet; it can be claimed with a code that has the place's name.
    waiting_device_id: UUID
    # Somebody who works there and nowhere else, other than those who try, with `site_role_id` in place of his own role.
    worker: Person
    # Bound to the establishment, to the organisation, and to the partner company.
    site_role_id: UUID
    organization_role_id: UUID
    company_role_id: UUID
    api_key_id: UUID
    invitation_id: UUID
    company_invitation_id: UUID
    # Of the site's device.
    alarm_id: UUID
    # To the site's device; the group's one command, too.
    command_id: UUID
    command_group_id: UUID
    # Registered at the site, with a companion and one booking; the other guest has neither.
    guest_id: UUID
    companion_id: UUID
    other_guest_id: UUID
    booking_id: UUID
    # The booking's own code, which is not on the lock; a backup code is.
    door_code_id: UUID
    # What the booking's guest could not be told, and in which words of his organisation he should have been.
    notification_id: UUID
    template_id: UUID
    # The thing that the one entry of the audit log is about.
    audited_id: str

    @property
    def is_foreign(self) -> bool:
        """Whether it is another tenant's."""
        return self.name in ("foreign", "direct")

    @property
    def partner_company_id(self) -> UUID:
        """The partner company that looks after it; for what none looks after, the other one."""
        return self.world.other_partner_company if self.is_foreign else self.world.partner_company

    @property
    def looked_after_by(self) -> UUID | None:
        """The partner company that looks after it."""
        return None if self.name == "direct" else self.partner_company_id

    @property
    def partner(self) -> Person:
        """Somebody of that partner company."""
        return self.world.other_partner if self.is_foreign else self.world.partner

    @property
    def role_id(self) -> UUID:
        """A custom role that is bound to it: to the organisation, for `unassigned` to the establishment. Nobody's, but of `own`."""
        return self.world.second_site_role if self.name == "unassigned" else self.organization_role_id


def places(world: World) -> list[Place]:
    """Put at every one of `PLACES` what the operations are about."""
    return [_furnished(world, name) for name in PLACES]


def _furnished(world: World, name: str) -> Place:
    tenant = {"foreign": world.other_tenant, "direct": world.direct_tenant}.get(name, world.tenant)
    site = tenant.sites[1 if name == "unassigned" else 0]
    is_foreign = tenant is not world.tenant
    company = world.other_partner_company if is_foreign else world.partner_company
    worker = world.add_person_now(f"worker-{name}@example.com", "user", organization_id=tenant.id, sites=[site])
    site_role_id = world.add_role_now(
        f"keeper of {site.name}", ["read_device"], organization_id=tenant.id, establishment_id=site.id
    )
    world.give_role_at(worker, site, site_role_id)
    part_id = world.add_part(tenant, site)
    company_role_id = world.add_role_now(f"clerk of {name}", ["read_device"], partner_company_id=company)
    guest_id, companion_id, other_guest_id = (new_guest(world, tenant, site) for _ in range(3))
    join(world, tenant, guest_id, companion_id)
    give_calendar(world, tenant, site)
    make_lock(world, site)
    booking_id = new_booking(world, tenant, site, guest_id)
    new_door_code(world, tenant, site, None, digits="739164", state="active")
    child_id = world.add_child(tenant, site, part_id)
    return Place(
        name=name,
        world=world,
        tenant=tenant,
        site=site,
        part_id=part_id,
        child_id=child_id,
        worker=worker,
        site_role_id=site_role_id,
        organization_role_id={"foreign": world.foreign_role, "direct": world.direct_role}.get(name, world.custom_role),
        company_role_id=company_role_id,
        api_key_id=world.new_api_key(worker),
        invitation_id=world.new_invitation(tenant, site),
        company_invitation_id=world.new_invitation_to_company(company, company_role_id),
        alarm_id=world.new_alarm(tenant, site),
        command_id=world.new_command(tenant, site),
        command_group_id=world.new_command_group(tenant, site, kind=f"to {name}"),
        guest_id=guest_id,
        companion_id=companion_id,
        other_guest_id=other_guest_id,
        booking_id=booking_id,
        door_code_id=new_door_code(world, tenant, site, booking_id),
        notification_id=new_notification(world, tenant, site, booking_id, guest_id),
        # `own` and `unassigned` are of one organisation.
        template_id=new_template(world, tenant, language="en" if name == "unassigned" else "es"),
        audited_id=world.new_audit_entry(
            tenant, site, actor=worker, partner_company_id=None if name == "direct" else company
        ),
        **_described(world, tenant, site, child_id, name),
    )


def _described(world: World, tenant: Tenant, site: Site, device_id: UUID, name: str) -> dict[str, UUID]:
    """What a device is, and how others of its kind get in."""
    profile_id = new_profile(world, tenant, name=f"kind of {name}")
    give_profile(world, device_id, profile_id)
    waiting_device_id = new_waiting_device(world, tenant)
    new_claim(world, waiting_device_id, f"code of {name}")
    return {
        "waiting_device_id": waiting_device_id,
        "profile_id": profile_id,
        "spare_profile_id": new_profile(world, tenant, name=f"spare of {name}"),
        "provisioning_key_id": new_provisioning_key(world, tenant, site, profile_id=profile_id),
    }
