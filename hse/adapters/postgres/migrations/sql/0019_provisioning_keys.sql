-- With a provisioning key devices get in by themselves. Everybody who opens one of them has the key: what it is worth is bounded.

insert into actions (name, resource, action, category, description, exclusive_to, hierarchy_max) values
    ('read_provisioning_key', 'provisioning_key', 'read', 'device_management', 'See with which keys devices get in by themselves', null, 32767),
    ('manage_provisioning_key', 'provisioning_key', 'manage', 'device_management', 'Make, change and delete keys with which devices get in by themselves', null, 32767);

insert into permissions (role_id, action_name)
select roles.id, actions.name
  from roles, actions
 where roles.type = 'system' and roles.name in ('root', 'partner', 'admin') and actions.resource = 'provisioning_key';

create table provisioning_keys (
    id                uuid primary key default gen_random_uuid(),
    organization_id   uuid not null references organizations on delete cascade,
    establishment_id  uuid,
    profile_id        uuid,
    name              text not null check (char_length(name) between 1 and 200),
    key               text not null unique check (char_length(key) between 8 and 64),
    secret_hash       bytea not null check (octet_length(secret_hash) = 32),
    makes_devices     boolean not null default true,
    devices_max       integer not null default 1000 check (devices_max between 1 and 100000),
    num_devices       integer not null default 0,
    is_enabled        boolean not null default true,
    expires_at        timestamptz,
    version           bigint not null default 1,
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now(),
    constraint provisioning_keys_establishment_is_of_the_organization foreign key (establishment_id, organization_id)
        references establishments (id, organization_id) on delete cascade,
    constraint provisioning_keys_profile_is_of_the_organization foreign key (profile_id, organization_id)
        references device_profiles (id, organization_id)
);
create index provisioning_keys_organization on provisioning_keys (organization_id);
create index provisioning_keys_establishment on provisioning_keys (establishment_id) where establishment_id is not null;
create index provisioning_keys_profile on provisioning_keys (profile_id) where profile_id is not null;

-- That a device came is no change.
create trigger provisioning_keys_touch
    before update of name, profile_id, makes_devices, devices_max, is_enabled, expires_at on provisioning_keys
    for each row execute function touch_version();

-- What becomes of a device that comes with a key, its serial number and the hash of the token that it shall have. `outcome`:
-- provisioned · refused (no such key, another secret, out of use, over) · full · unknown (not registered, and the key makes none) ·
-- taken (has a token, is a child, is disabled, or stands elsewhere) · invalid (no serial number). All but the first are one answer to
-- the device, and no device changes.
create function hse_provision_device(
    provision_key text, provision_secret_hash bytea, device_serial_number text, device_token_hash bytea
) returns table (outcome text, device_id uuid)
    language plpgsql security definer set search_path = public, pg_temp as $$
declare
    with_key provisioning_keys;
    known devices;
begin
    select k.* into with_key
      from provisioning_keys k
      join organizations o on o.id = k.organization_id and o.is_active
     where k.key = provision_key and k.secret_hash = provision_secret_hash
       and k.is_enabled and (k.expires_at is null or k.expires_at > now())
       for update of k;
    if not found then
        return query select 'refused', null::uuid;
        return;
    end if;
    if with_key.num_devices >= with_key.devices_max then
        return query select 'full', null::uuid;
        return;
    end if;
    if device_serial_number is null or char_length(device_serial_number) not between 1 and 200
       or device_serial_number ~ '[\x01-\x1f\x7f]' then
        return query select 'invalid', null::uuid;
        return;
    end if;
    select * into known from devices d
     where d.organization_id = with_key.organization_id and d.serial_number = device_serial_number
       for update;
    if found then
        if known.token_hash is not null or known.gateway_id is not null or not known.is_enabled
           or (with_key.establishment_id is not null and known.establishment_id is distinct from with_key.establishment_id) then
            return query select 'taken', null::uuid;
            return;
        end if;
        update devices d
           set token_hash = device_token_hash, profile_id = coalesce(d.profile_id, with_key.profile_id)
         where d.id = known.id;
    elsif with_key.makes_devices then
        insert into devices (organization_id, establishment_id, profile_id, name, serial_number, token_hash)
        values (with_key.organization_id, with_key.establishment_id, with_key.profile_id, device_serial_number,
                device_serial_number, device_token_hash)
        on conflict (organization_id, serial_number) where serial_number is not null do nothing
        returning * into known;
        if not found then
            -- Somebody registered it at this moment.
            return query select 'taken', null::uuid;
            return;
        end if;
    else
        return query select 'unknown', null::uuid;
        return;
    end if;
    update provisioning_keys k set num_devices = k.num_devices + 1 where k.id = with_key.id;
    insert into audit_entries (actor_kind, action, entity_type, entity_id, organization_id, establishment_id, after)
    values ('anonymous', 'device.provision', 'device', known.id::text, with_key.organization_id, known.establishment_id,
            jsonb_build_object('serial_number', device_serial_number, 'provisioning_key_id', with_key.id));
    return query select 'provisioned', known.id;
end
$$;
revoke execute on function hse_provision_device(text, bytea, text, bytea) from public;

-- --- the second lock ---

alter table provisioning_keys enable row level security;
create policy reach on provisioning_keys to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or organization_id = any((select hse_setting_ids('organization_ids'))::uuid[])
    or establishment_id = any((select hse_setting_ids('establishment_ids'))::uuid[])
);
-- The hash of the secret is written and never read.
grant select (
    id, organization_id, establishment_id, profile_id, name, key, makes_devices, devices_max, num_devices, is_enabled, expires_at,
    version, created_at, updated_at
), insert (
    organization_id, establishment_id, profile_id, name, key, secret_hash, makes_devices, devices_max, expires_at
), update (name, profile_id, makes_devices, devices_max, is_enabled, expires_at) on provisioning_keys to hse_api;
grant delete on provisioning_keys to hse_api;

do $$
begin
    if exists (select from pg_roles where rolname = 'hse_ingest') then
        grant execute on function hse_provision_device(text, bytea, text, bytea) to hse_ingest;
    end if;
end
$$;
