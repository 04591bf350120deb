-- What a device is desired to be and what it reported to be: a JSON object each, with a version each.

insert into actions (name, resource, action, category, description, exclusive_to, hierarchy_max) values
    ('read_device_attribute', 'device_attribute', 'read', 'device_management', 'See what devices are desired and reported to be', null, 32767),
    ('manage_device_attribute', 'device_attribute', 'manage', 'device_management', 'Say what devices are desired to be', null, 32767);

insert into permissions (role_id, action_name)
select roles.id, actions.name
  from roles, actions
 where roles.type = 'system' and roles.name in ('root', 'partner', 'admin') and actions.resource = 'device_attribute';

-- A row comes with the first word of either side, the people or the device.
create table device_attributes (
    device_id         uuid primary key references devices on delete cascade,
    desired           jsonb not null default '{}' check (jsonb_typeof(desired) = 'object'),
    desired_version   bigint not null default 0,
    desired_at        timestamptz,
    desired_by        uuid,
    reported          jsonb not null default '{}' check (jsonb_typeof(reported) = 'object'),
    reported_version  bigint not null default 0,
    reported_at       timestamptz
);
comment on column device_attributes.reported_at is 'when the device was heard last, also when nothing changed';

-- --- the second lock ---

alter table device_attributes enable row level security;
create policy reach on device_attributes to hse_api using (exists (select from devices d where d.id = device_id));
grant select on device_attributes to hse_api;
-- What was reported is the worker's to write.
grant insert (device_id, desired, desired_version, desired_at, desired_by),
    update (desired, desired_version, desired_at, desired_by) on device_attributes to hse_api;

do $$
begin
    if exists (select from pg_roles where rolname = 'hse_ingest') then
        grant select (device_id, desired, desired_version) on device_attributes to hse_ingest;
        create policy core on device_attributes for select to hse_ingest using (true);
    end if;
end
$$;
