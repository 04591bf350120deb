-- Door codes, and the part of a command's params that nobody may read on its way to the device.

insert into actions (name, resource, action, category, description, exclusive_to, hierarchy_max) values
    ('read_door_code', 'door_code', 'read', 'booking_management', 'Read the digits of door codes', null, 32767),
    ('manage_door_code', 'door_code', 'manage', 'booking_management', 'Have door codes tried again, give out backup codes, set up locks', null, 32767);

insert into permissions (role_id, action_name)
select roles.id, actions.name
  from roles, actions
 where roles.type = 'system' and roles.name in ('root', 'partner', 'admin') and actions.resource = 'door_code';

-- --- secret params ---

-- What is merged into the params when a command is handed to a node, and not before: JSON, sealed with the processes' key. It is gone
-- when the command has ended, whoever ends it. The api's role has no right on it.
alter table device_commands add column sealed_params bytea;

alter table device_commands
    add constraint device_commands_ended_hold_no_secret check (finished_at is null or sealed_params is null);

create function forget_sealed_params() returns trigger language plpgsql as $$
begin
    new.sealed_params := null;
    return new;
end
$$;
create trigger device_commands_forget before update on device_commands for each row
    when (new.finished_at is not null and new.sealed_params is not null) execute function forget_sealed_params();

revoke select on device_commands from hse_api;
grant select (
    id, number, organization_id, establishment_id, device_id, group_id, created_by, type, params, state, dispatch, deadline,
    queued_at, sent_at, delivered_at, finished_at, result_at, attempts, node, status, message, result
) on device_commands to hse_api;

-- --- locks ---

-- How a lock is looked after, where that is not as usual. A device of the type `doorlock` is a lock, with a row here or without.
create table door_locks (
    device_id            uuid primary key references devices on delete cascade,
    num_backup_codes     integer not null default 0 check (num_backup_codes between 0 and 10),
    wrong_codes_max      integer not null default 5 check (wrong_codes_max between 1 and 1000),
    wrong_codes_minutes  integer not null default 10 check (wrong_codes_minutes between 1 and 1440),
    configured_by        uuid not null,
    version              bigint not null default 1,
    created_at           timestamptz not null default now(),
    updated_at           timestamptz not null default now()
);
comment on column door_locks.num_backup_codes is 'so many codes that nobody has wait on the lock for a booking whose own is not there';
comment on column door_locks.wrong_codes_max is 'so many wrong codes within wrong_codes_minutes are an alarm';

create trigger door_locks_touch before update on door_locks
    for each row execute function touch_version();

-- --- codes ---

-- No foreign key to the booking or the lock: a code must be taken off its lock when its booking is deleted, and what became of one
-- stays known. `code_mac` is a keyed hash that says whether two codes of a lock are the same, to who has the key.
create table door_lock_codes (
    id                   uuid primary key default gen_random_uuid(),
    organization_id      uuid not null,
    establishment_id     uuid,
    device_id            uuid not null,
    booking_id           uuid,
    created_by           uuid,
    is_backup            boolean not null default false,
    sealed_code          bytea,
    code_mac             bytea check (octet_length(code_mac) = 32),
    valid_from           timestamptz not null,
    valid_until          timestamptz not null,
    max_usages           integer check (max_usages > 0),
    decided_at           timestamptz not null,
    deadline             timestamptz not null,
    state                text not null default 'planned' check (
        state in ('planned', 'pushing', 'set', 'active', 'revoking', 'revoked', 'failed')
    ),
    reason               text,
    on_lock_from         timestamptz,
    on_lock_until        timestamptz,
    on_lock_max_usages   integer,
    may_be_on_lock       boolean not null default false,
    told                 text check (told in ('set', 'clear')),
    told_from            timestamptz,
    told_until           timestamptz,
    told_max_usages      integer,
    num_tries            integer not null default 0 check (num_tries >= 0),
    not_before           timestamptz,
    command_id           uuid,
    num_commands         bigint not null default 0,
    usage_count          bigint not null default 0,
    last_used_at         timestamptz,
    ended_at             timestamptz,
    version              bigint not null default 1,
    created_at           timestamptz not null default now(),
    updated_at           timestamptz not null default now(),
    constraint door_lock_codes_have_a_time check (valid_from < valid_until),
    constraint door_lock_codes_ended_hold_no_secret check ((ended_at is null) = (sealed_code is not null and code_mac is not null)),
    constraint door_lock_codes_end_is_dated check (
        (ended_at is not null) = (state = 'revoked' or (state = 'failed' and coalesce(reason, '') = 'lock-gone'))
    ),
    constraint door_lock_codes_on_lock_are_confirmed check (
        state not in ('set', 'active') or (on_lock_from is not null and may_be_on_lock)
    )
);
comment on column door_lock_codes.on_lock_from is 'with on_lock_until and on_lock_max_usages: what the lock has confirmed last';
comment on column door_lock_codes.told_from is 'with told_until and told_max_usages: what the command says that is out';
comment on column door_lock_codes.num_commands is 'the number of the last command on this code: a lock does nothing that an older one says';

-- Of all that are, or may be, on a lock no two open it with the same digits.
create unique index door_lock_codes_differ on door_lock_codes (device_id, code_mac) where ended_at is null;
create index door_lock_codes_booking on door_lock_codes (booking_id, id) where booking_id is not null;
create index door_lock_codes_device on door_lock_codes (device_id, created_at, id);
create index door_lock_codes_organization on door_lock_codes (organization_id, created_at, id);
create index door_lock_codes_establishment on door_lock_codes (establishment_id, created_at, id);
create index door_lock_codes_command on door_lock_codes (command_id) where command_id is not null;

create trigger door_lock_codes_touch before update on door_lock_codes
    for each row execute function touch_version();

-- --- who is to be looked at ---

-- Codes of no booking wait in the bookings' queue under the id of their lock.
create function queue_changed_door_code() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
begin
    perform hse_queue_booking(coalesce(new.booking_id, new.device_id));
    if tg_op = 'UPDATE' and old.booking_id is distinct from new.booking_id then
        perform hse_queue_booking(coalesce(old.booking_id, old.device_id));
    end if;
    return null;
end
$$;
-- Not for every use of a code.
create trigger door_lock_codes_queue
    after insert or update of state, booking_id, valid_from, valid_until, num_tries, not_before on door_lock_codes
    for each row execute function queue_changed_door_code();

create function queue_changed_door_lock() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
begin
    perform hse_queue_booking(new.device_id);
    return null;
end
$$;
create trigger door_locks_queue after insert or update on door_locks
    for each row execute function queue_changed_door_lock();

create function queue_door_codes_of_commands() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
begin
    perform hse_queue_booking(coalesce(c.booking_id, c.device_id))
       from new_rows n
       join old_rows o using (id)
       join door_lock_codes c on c.command_id = n.id
      where n.type in ('set_code', 'clear_code') and n.state <> o.state;
    return null;
end
$$;
create trigger device_commands_queue_door_codes after update on device_commands
    referencing old table as old_rows new table as new_rows
    for each statement execute function queue_door_codes_of_commands();

-- A lock that comes, goes or moves changes which codes are wanted.
create function queue_door_codes_of_lock() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
declare
    lock_id uuid;
    places uuid[] := '{}';
begin
    if tg_op <> 'INSERT' then
        lock_id := old.id;
        places := places || old.establishment_id;
    end if;
    if tg_op <> 'DELETE' then
        lock_id := new.id;
        places := places || new.establishment_id;
    end if;
    perform hse_queue_booking(known.id) from (
        select b.id from bookings b where b.establishment_id = any(places) and b.status in ('confirmed', 'in-progress')
        union
        select coalesce(c.booking_id, c.device_id) from door_lock_codes c where c.device_id = lock_id and c.ended_at is null
        union
        select l.device_id from door_locks l where l.device_id = lock_id
    ) known;
    return null;
end
$$;
create trigger devices_queue_new_lock after insert on devices for each row
    when (new.device_type = 'doorlock') execute function queue_door_codes_of_lock();
create trigger devices_queue_lock after update on devices for each row
    when ('doorlock' in (old.device_type, new.device_type)
          and (old.device_type, old.establishment_id, old.area_id, old.gateway_id, old.is_enabled)
              is distinct from (new.device_type, new.establishment_id, new.area_id, new.gateway_id, new.is_enabled))
    execute function queue_door_codes_of_lock();
create trigger devices_queue_gone_lock after delete on devices for each row
    when (old.device_type = 'doorlock') execute function queue_door_codes_of_lock();

create function queue_door_codes_of_area() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
begin
    perform hse_queue_booking(b.id) from bookings b
      where b.establishment_id = new.establishment_id and b.status in ('confirmed', 'in-progress');
    return null;
end
$$;
create trigger areas_queue_door_codes after update on areas for each row
    when (old.parent_area_id is distinct from new.parent_area_id) execute function queue_door_codes_of_area();

-- --- the second lock ---

alter table door_locks enable row level security;
create policy reach on door_locks to hse_api using (exists (select from devices d where d.id = device_id));
grant select on door_locks to hse_api;
grant insert (device_id, num_backup_codes, wrong_codes_max, wrong_codes_minutes, configured_by),
      update (num_backup_codes, wrong_codes_max, wrong_codes_minutes, configured_by)
    on door_locks to hse_api;

alter table door_lock_codes enable row level security;
create policy reach on door_lock_codes to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or organization_id = any((select hse_setting_ids('organization_ids'))::uuid[])
    or establishment_id = any((select hse_setting_ids('establishment_ids'))::uuid[])
);
-- The worker owns what becomes of a code; the api can have it tried again, and give a backup code to a booking.
grant select on door_lock_codes to hse_api;
grant update (
    booking_id, created_by, valid_from, valid_until, max_usages, decided_at, deadline, num_tries, not_before
) on door_lock_codes to hse_api;
