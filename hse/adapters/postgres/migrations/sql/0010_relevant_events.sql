-- What the control plane does with relevant events: when they are tried again, the alarms that come of them, and who is told at once.

alter table event_outbox
    add column attempts integer not null default 0,
    add column next_attempt_at timestamptz,
    add column last_error text;

-- What no handler could handle, for a person to look at. To have one tried again, insert it into event_outbox and delete it here.
create table parked_events (
    id          bigint primary key,
    time        timestamptz not null,
    device_id   uuid not null,
    event_type  text not null,
    value       double precision,
    unit        text,
    metadata    jsonb,
    source      text,
    created_at  timestamptz not null,
    attempts    integer not null,
    reason      text not null,
    parked_at   timestamptz not null default now()
);

-- --- alarms ---

-- One row for each time that an alarm of a device was on. It stays where the device stood then, also when the device moves or is
-- deleted: hence no foreign key to it. The module of alerts will own the states; `acknowledged` is its.
create table device_alarms (
    id                uuid primary key default gen_random_uuid(),
    organization_id   uuid not null references organizations on delete cascade,
    establishment_id  uuid,
    device_id         uuid not null,
    type              text not null check (char_length(type) between 1 and 100),
    severity          text not null check (severity in ('critical', 'major', 'minor', 'warning', 'info')),
    state             text not null check (state in ('active', 'acknowledged', 'cleared')),
    message           text check (char_length(message) <= 500),
    value             double precision,
    unit              text,
    metadata          jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    num_reports       integer not null default 1 check (num_reports > 0),
    raised_at         timestamptz not null,
    last_reported_at  timestamptz not null,
    cleared_at        timestamptz,
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now(),
    constraint device_alarms_cleared_has_a_time check ((state = 'cleared') = (cleared_at is not null)),
    constraint device_alarms_establishment_is_of_the_organization foreign key (establishment_id, organization_id)
        references establishments (id, organization_id) on delete cascade
);
comment on column device_alarms.num_reports is 'how often the device has said so while it was on';

create unique index device_alarms_open on device_alarms (device_id, type) where state <> 'cleared';
create index device_alarms_device on device_alarms (device_id, type, raised_at desc);
create index device_alarms_organization on device_alarms (organization_id, raised_at desc, id desc);
create index device_alarms_establishment on device_alarms (establishment_id, raised_at desc, id desc)
    where establishment_id is not null;

create trigger device_alarms_touch before update on device_alarms
    for each row execute function touch_updated_at();

alter table device_alarms enable row level security;
create policy reach on device_alarms to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or organization_id = any((select hse_setting_ids('organization_ids'))::uuid[])
    or establishment_id = any((select hse_setting_ids('establishment_ids'))::uuid[])
);
grant select on device_alarms to hse_api;

insert into actions (name, resource, action, category, description, exclusive_to, hierarchy_max) values
    ('read_alarm', 'alarm', 'read', 'monitoring', 'See the alarms of devices', null, 32767);

insert into permissions (role_id, action_name)
select roles.id, 'read_alarm' from roles where roles.type = 'system';

-- --- live streams ---

-- Where devices stand, and nothing else of them: what a node tells of a device is shown to those only who reach its place. That is
-- decided for each stream by the reach of its owner; the stream itself comes from no table, so no row-level security is in its way.
create function hse_device_places(ids uuid[]) returns table (device_id uuid, organization_id uuid, establishment_id uuid)
    language sql stable security definer set search_path = public, pg_temp as $$
    select d.id, d.organization_id, d.establishment_id from devices d where d.id = any(ids)
$$;
revoke execute on function hse_device_places(uuid[]) from public;
grant execute on function hse_device_places(uuid[]) to hse_api;

-- Tells who may see less or more now: the user whose id a column holds, or `all`. Open streams ask again what they may show.
create function notify_scope_changed() returns trigger language plpgsql as $$
declare
    changed record;
begin
    if tg_op = 'DELETE' then
        changed := old;
    else
        changed := new;
    end if;
    perform pg_notify('hse_scopes', case when tg_nargs = 0 then 'all' else to_jsonb(changed) ->> tg_argv[0] end);
    return null;
end
$$;

create trigger users_notify_scope after update on users for each row
    when ((old.role_id, old.partner_company_id, old.organization_id, old.has_all_establishments, old.is_active)
          is distinct from (new.role_id, new.partner_company_id, new.organization_id, new.has_all_establishments, new.is_active))
    execute function notify_scope_changed('id');
create trigger users_notify_end after delete on users for each row execute function notify_scope_changed('id');
create trigger user_establishments_notify_scope after insert or update or delete on user_establishments
    for each row execute function notify_scope_changed('user_id');
create trigger sessions_notify_end after update on sessions for each row
    when (old.revoked_at is distinct from new.revoked_at or old.expires_at is distinct from new.expires_at)
    execute function notify_scope_changed('user_id');
create trigger api_keys_notify_scope after update on api_keys for each row
    when ((old.revoked_at, old.expires_at, old.actions) is distinct from (new.revoked_at, new.expires_at, new.actions))
    execute function notify_scope_changed('user_id');
create trigger permissions_notify_scope after insert or update or delete on permissions
    for each row execute function notify_scope_changed();
create trigger roles_notify_scope after update on roles for each row
    when (old.hierarchy is distinct from new.hierarchy) execute function notify_scope_changed();
create trigger organizations_notify_new after insert on organizations for each row
    when (new.partner_company_id is not null) execute function notify_scope_changed();
create trigger organizations_notify_scope after update on organizations for each row
    when ((old.partner_company_id, old.is_active) is distinct from (new.partner_company_id, new.is_active))
    execute function notify_scope_changed();
create trigger partner_companies_notify_scope after update on partner_companies for each row
    when (old.is_active is distinct from new.is_active) execute function notify_scope_changed();
