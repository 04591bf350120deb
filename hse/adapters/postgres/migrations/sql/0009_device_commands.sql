-- Commands to devices. The api adds them and may take back what waits; the worker hands them to the nodes and owns every other change
-- of their state. A command is a row from its first moment, so it survives the death of any process.

insert into actions (name, resource, action, category, description, exclusive_to, hierarchy_max) values
    ('send_command', 'device_command', 'send', 'device_management', 'Send commands to devices', null, 32767),
    ('read_command', 'device_command', 'read', 'device_management', 'See commands, what they said and what came of them', null, 32767),
    ('cancel_command', 'device_command', 'cancel', 'device_management', 'Take back commands that were not sent yet', null, 32767);

insert into permissions (role_id, action_name)
select roles.id, granted.name
  from roles, unnest(array['send_command', 'read_command', 'cancel_command']) as granted (name)
 where roles.type = 'system' and roles.name in ('root', 'partner', 'admin');

-- One command to many devices, as it was asked for. It is seen by those who see one of its commands.
create table device_command_groups (
    id               uuid primary key default gen_random_uuid(),
    organization_id  uuid not null,
    created_by       uuid not null,
    type             text not null check (char_length(type) between 1 and 50),
    params           jsonb not null default '{}' check (jsonb_typeof(params) = 'object'),
    target           jsonb not null check (jsonb_typeof(target) = 'object'),
    deadline         timestamptz not null,
    num_commands     integer not null check (num_commands > 0),
    num_left_out     integer not null default 0 check (num_left_out >= 0),
    created_at       timestamptz not null default now()
);
comment on column device_command_groups.num_left_out is 'devices whose queue was full';

create index device_command_groups_organization on device_command_groups (organization_id, created_at);

-- No foreign key to devices, organisations or people: what was commanded stays known when they are gone, as in the audit log. The
-- place is where the device stood.
create table device_commands (
    id                uuid primary key default gen_random_uuid(),
    number            bigint not null generated always as identity,
    organization_id   uuid not null,
    establishment_id  uuid,
    device_id         uuid not null,
    group_id          uuid references device_command_groups deferrable initially deferred,
    created_by        uuid not null,
    type              text not null check (char_length(type) between 1 and 50),
    params            jsonb not null default '{}' check (jsonb_typeof(params) = 'object'),
    state             text not null default 'queued' check (
        state in ('queued', 'sent', 'delivered', 'succeeded', 'failed', 'timed_out', 'expired', 'cancelled')
    ),
    dispatch          text not null default 'waiting' check (dispatch in ('waiting', 'under_way', 'over')),
    deadline          timestamptz not null,
    queued_at         timestamptz not null default now(),
    sent_at           timestamptz,
    delivered_at      timestamptz,
    finished_at       timestamptz,
    result_at         timestamptz,
    attempts          integer not null default 0 check (attempts >= 0),
    node              text,
    status            bigint,
    message           text,
    result            jsonb,
    constraint device_commands_end_is_dated check (
        (finished_at is not null) = (state in ('succeeded', 'failed', 'timed_out', 'expired', 'cancelled'))
    ),
    constraint device_commands_end_is_over check ((finished_at is not null) = (dispatch = 'over'))
) with (fillfactor = 80);
comment on column device_commands.number is 'the order in which a device gets its commands';
comment on column device_commands.dispatch is
    'waiting: surely not at the device; under_way: handed to a node, and with state queued nobody knows yet whether it took it';
comment on column device_commands.result_at is 'when the device answered; later than finished_at: it answered too late';

create index device_commands_waiting on device_commands (device_id, number) where dispatch <> 'over';
create index device_commands_unfinished on device_commands (deadline) where finished_at is null;
create index device_commands_finished on device_commands (finished_at) where finished_at is not null;
create index device_commands_device on device_commands (device_id, queued_at, id);
create index device_commands_establishment on device_commands (establishment_id, queued_at, id);
create index device_commands_organization on device_commands (organization_id, queued_at, id);
create index device_commands_group on device_commands (group_id, queued_at, id) where group_id is not null;

-- Which devices have commands that wait. One worker at a time works on a device's queue: it has it until `claimed_until`, and after
-- that another may take it over. The worker's alone: the api's role has no right on it.
create table device_command_queues (
    device_id      uuid primary key,
    due_at         timestamptz not null default now(),
    tries          integer not null default 0,
    claimed_by     uuid,
    claimed_until  timestamptz
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
comment on column device_command_queues.tries is 'how often in a row the device was not connected: it is tried ever less often';
comment on column device_command_queues.due_at is 'when to try next; asking for a try while the queue is claimed counts after the claim';

create index device_command_queues_due on device_command_queues (due_at);

-- The devices in order, so that of two who add commands to many of the same devices one waits for the other, and not each for both.
create function queue_device_commands() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
begin
    insert into device_command_queues (device_id)
    select distinct device_id from added order by device_id
        on conflict (device_id) do update
            set due_at = least(device_command_queues.due_at, excluded.due_at), tries = 0;
    perform pg_notify('hse_commands', '');
    return null;
end
$$;

create trigger device_commands_queue after insert on device_commands referencing new table as added
    for each statement execute function queue_device_commands();

-- The ids of commands that changed, and of their groups: a payload holds 8000 bytes, 200 ids are 7400.
create function notify_commands_changed() returns trigger language plpgsql as $$
declare
    num_messages integer;
begin
    with changed as (
        select n.id, n.group_id from new_rows n join old_rows o using (id)
         where n.state <> o.state or n.result_at is distinct from o.result_at
    ), told as (
        select id from changed
        union
        select group_id from changed where group_id is not null
    ), parted as (
        select id, (row_number() over () - 1) / 200 as part from told
    )
    select count(pg_notify('hse_command_changed', ids)) into num_messages
      from (select string_agg(id::text, ',') as ids from parted group by part) messages;
    return null;
end
$$;

create trigger device_commands_notify after update on device_commands
    referencing old table as old_rows new table as new_rows
    for each statement execute function notify_commands_changed();

-- Which of these devices have so many unfinished commands: a limit of the device, so whoever sent them counts, and from wherever.
create function hse_full_command_queues(device_ids uuid[], commands_max integer) returns setof uuid
    language sql stable security definer set search_path = public, pg_temp as $$
    select c.device_id from device_commands c
     where c.device_id = any(device_ids) and c.dispatch <> 'over'
     group by c.device_id
    having count(*) >= commands_max
$$;
revoke execute on function hse_full_command_queues(uuid[], integer) from public;
grant execute on function hse_full_command_queues(uuid[], integer) to hse_api;

-- --- the second lock ---

alter table device_commands enable row level security;
create policy see on device_commands for select to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or organization_id = any((select hse_setting_ids('organization_ids'))::uuid[])
    or establishment_id = any((select hse_setting_ids('establishment_ids'))::uuid[])
);
-- To a device that this transaction sees, where it stands, in the name of who acts.
create policy add on device_commands for insert to hse_api with check (
    created_by = (select hse_setting('user_id')::uuid)
    and exists (
        select from devices d
         where d.id = device_id and d.organization_id = device_commands.organization_id
           and d.establishment_id is not distinct from device_commands.establishment_id
    )
);
-- To take back what waits is the only change that the api can make.
create policy take_back on device_commands for update to hse_api
    using (state = 'queued' and dispatch = 'waiting')
    with check (state = 'cancelled');

alter table device_command_groups enable row level security;
create policy see on device_command_groups for select to hse_api using (
    exists (select from device_commands c where c.group_id = device_command_groups.id)
);
create policy add on device_command_groups for insert to hse_api with check (
    created_by = (select hse_setting('user_id')::uuid)
    and exists (select from device_commands c where c.group_id = device_command_groups.id)
);

grant select on device_commands, device_command_groups to hse_api;
grant insert (id, organization_id, establishment_id, device_id, group_id, created_by, type, params, deadline)
    on device_commands to hse_api;
grant update (state, dispatch, finished_at) on device_commands to hse_api;
grant insert (id, organization_id, created_by, type, params, target, deadline, num_commands, num_left_out)
    on device_command_groups to hse_api;
