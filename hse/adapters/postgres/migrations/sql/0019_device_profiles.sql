-- What devices of a kind measure and how what they say becomes values (docs/device-profiles.md), and where those that are polled answer.

insert into actions (name, resource, action, category, description, exclusive_to, hierarchy_max) values
    ('read_device_profile', 'device_profile', 'read', 'device_management', 'See what kinds of device there are, and what they measure', null, 32767),
    ('manage_device_profile', 'device_profile', 'manage', 'device_management', 'Describe, change and delete kinds of device', null, 32767);

insert into permissions (role_id, action_name)
select roles.id, actions.name
  from roles, actions
 where roles.type = 'system' and roles.name in ('root', 'partner', 'admin') and actions.resource = 'device_profile';

create table device_profiles (
    id                   uuid primary key default gen_random_uuid(),
    organization_id      uuid not null references organizations on delete cascade,
    name                 text not null check (char_length(name) between 1 and 200),
    description          text check (char_length(description) <= 2000),
    expected_interval_s  integer check (expected_interval_s between 1 and 2678400),
    points               jsonb not null check (jsonb_typeof(points) = 'array'),
    format               jsonb not null,
    format_kind          text not null generated always as (format ->> 'kind') stored
        check (format_kind in ('hdp', 'json', 'senml', 'modbus')),
    version              bigint not null default 1,
    created_at           timestamptz not null default now(),
    updated_at           timestamptz not null default now(),
    constraint device_profiles_name unique (organization_id, name),
    unique (id, organization_id)
);
comment on column device_profiles.expected_interval_s is 'a device that says nothing for so long is late; null: nobody waits for it';
comment on column device_profiles.points is 'with every field there, as format';

create trigger device_profiles_touch before update on device_profiles
    for each row execute function touch_version();

-- A device has a profile of its own organisation: a foreign key over both holds it without a race.
alter table devices
    add column profile_id uuid,
    add column modbus jsonb check (jsonb_typeof(modbus) = 'object' and modbus ?& array['host', 'port', 'unit_id', 'framing']),
    add constraint devices_profile_is_of_the_organization foreign key (profile_id, organization_id)
        references device_profiles (id, organization_id);
comment on column devices.modbus is 'where it answers, when it is polled';
create index devices_profile on devices (profile_id) where profile_id is not null;

-- Profiles change seldom, one by one: a message each, with its id. Of devices that have it `hse_devices` tells.
create function notify_device_profile_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('hse_device_profiles', coalesce(new.id, old.id)::text);
    return null;
end
$$;
create trigger device_profiles_notify after insert or update or delete on device_profiles
    for each row execute function notify_device_profile_changed();

-- --- the second lock ---

alter table device_profiles enable row level security;
create policy see on device_profiles for select to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or organization_id = any((select hse_setting_ids('organization_ids'))::uuid[])
    or organization_id = (select hse_setting('organization_id')::uuid)
);
create policy change on device_profiles to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or organization_id = any((select hse_setting_ids('organization_ids'))::uuid[])
);
grant select, delete on device_profiles to hse_api;
grant insert (organization_id, name, description, expected_interval_s, points, format),
    update (name, description, expected_interval_s, points, format) on device_profiles to hse_api;

do $$
begin
    if exists (select from pg_roles where rolname = 'hse_ingest') then
        grant select (id, organization_id, points, expected_interval_s, format, version) on device_profiles to hse_ingest;
        grant select (profile_id, modbus) on devices to hse_ingest;
        create policy core on device_profiles for select to hse_ingest using (true);
    end if;
end
$$;
