-- Who may connect. The control plane grows on these tables; the ingest core reads them and hears of changes through
-- NOTIFY.

create function touch_updated_at() returns trigger language plpgsql as $$
begin
    new.updated_at := now();
    return new;
end
$$;

create table organizations (
    id          uuid primary key default gen_random_uuid(),
    name        text not null unique check (char_length(name) between 1 and 200),
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);

create trigger organizations_touch before update on organizations
    for each row execute function touch_updated_at();

-- A gateway speaks for its children: same organisation, and one level only. A foreign key holds both, without a race
-- that a trigger would have: it points at (id, organization_id, is_child = false), so a gateway cannot be a child, and
-- one that has children cannot become one.
create table devices (
    id                uuid primary key default gen_random_uuid(),
    organization_id   uuid not null references organizations,
    gateway_id        uuid,
    name              text not null check (char_length(name) between 1 and 200),
    token_hash        bytea check (octet_length(token_hash) = 32),
    is_enabled        boolean not null default true,
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now(),
    is_child          boolean not null generated always as (gateway_id is not null) stored,
    gateway_is_child  boolean generated always as (case when gateway_id is not null then false end) stored,
    unique (id, organization_id, is_child),
    constraint devices_gateway_is_top_level foreign key (gateway_id, organization_id, gateway_is_child)
        references devices (id, organization_id, is_child)
);
comment on column devices.token_hash is 'SHA-256 of the token; null: the device cannot connect by itself';

create index devices_organization on devices (organization_id);
create index devices_gateway on devices (gateway_id) where gateway_id is not null;

create trigger devices_touch before update on devices
    for each row execute function touch_updated_at();

-- One message a statement: the ids when they are few, else 'reload' (a payload holds 8000 bytes, 100 ids are 3700).
create function notify_devices_changed() returns trigger language plpgsql as $$
declare
    changed_count bigint;
    payload text := 'reload';
begin
    if tg_op <> 'TRUNCATE' then
        select count(*), string_agg(id::text, ',') filter (where place <= 100)
          into changed_count, payload
          from (select id, row_number() over () as place from changed) numbered;
        if changed_count = 0 then
            return null;
        elsif changed_count > 100 then
            payload := 'reload';
        end if;
    end if;
    perform pg_notify('hse_devices', payload);
    return null;
end
$$;

create trigger devices_notify_insert after insert on devices referencing new table as changed
    for each statement execute function notify_devices_changed();
create trigger devices_notify_update after update on devices referencing new table as changed
    for each statement execute function notify_devices_changed();
create trigger devices_notify_delete after delete on devices referencing old table as changed
    for each statement execute function notify_devices_changed();
create trigger devices_notify_truncate after truncate on devices
    for each statement execute function notify_devices_changed();
