-- What a device sent and nobody could understand or store is counted and shown at the device. How many there are, and why the last
-- one, whoever sees the device may know; what was sent may be anything, a door code too, and takes an action of its own.

insert into actions (name, resource, action, category, description, exclusive_to, hierarchy_max) values
    ('read_dead_letter', 'dead_letter', 'read', 'device_management', 'See what devices sent that could not be understood or stored', null, 32767);

insert into permissions (role_id, action_name)
select roles.id, 'read_dead_letter' from roles where roles.type = 'system' and roles.name in ('root', 'partner', 'admin');

-- With all that counting takes: no row is read for it.
create index dead_letters_device on dead_letters (device_id, received_at desc, id desc) include (status, code)
    where status <> 'discarded';

-- How many of a device's dead letters were deleted: because they were too many, or too old.
create table dead_letter_removals (
    device_id    uuid primary key,
    num_removed  bigint not null check (num_removed > 0),
    removed_at   timestamptz not null
);

-- --- the second lock ---

-- Views of what belongs to named devices, as of the events (0012): dead letters are written by COPY, too.
create view named_dead_letters as
    select id, device_id, received_at, code, reason, event, status, source
      from dead_letters
     where status <> 'discarded' and device_id = any((select hse_setting_ids('device_ids'))::uuid[]);

create view named_dead_letter_removals as
    select device_id, num_removed, removed_at
      from dead_letter_removals where device_id = any((select hse_setting_ids('device_ids'))::uuid[]);

grant select on named_dead_letters, named_dead_letter_removals to hse_api;
