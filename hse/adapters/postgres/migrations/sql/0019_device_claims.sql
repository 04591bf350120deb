-- Who holds a device in his hands has it stand where he works, with the code that is printed on it.

insert into actions (name, resource, action, category, description, exclusive_to, hierarchy_max) values
    ('claim_device', 'device', 'claim', 'device_management', 'Have a device stand at an establishment, with the code that is printed on it', null, 32767);

insert into permissions (role_id, action_name)
select id, 'claim_device' from roles where type = 'system' and name in ('root', 'partner', 'admin');

create table device_claims (
    device_id   uuid primary key references devices on delete cascade,
    code_hash   bytea not null unique check (octet_length(code_hash) = 32),
    created_by  uuid not null,
    created_at  timestamptz not null default now()
);

-- A device that has its place is not claimed any more, however it got there.
create function forget_claim_of_placed_device() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
begin
    delete from device_claims where device_id = new.id;
    return null;
end
$$;
create trigger devices_forget_claim after update of establishment_id on devices for each row
    when (new.establishment_id is not null and old.establishment_id is null) execute function forget_claim_of_placed_device();

-- Places the device of a code and uses the code up; null when there is none that waits in this establishment's organisation, or when
-- this transaction does not reach the establishment. The device itself it cannot see before.
create function hse_claim_device(claim_code_hash bytea, at_establishment uuid) returns uuid
    language plpgsql security definer set search_path = public, pg_temp as $$
declare
    claimed uuid;
begin
    update devices d
       set establishment_id = e.id
      from device_claims c, establishments e
     where c.code_hash = claim_code_hash and d.id = c.device_id and d.establishment_id is null
       and e.id = at_establishment and e.organization_id = d.organization_id
       and (
           hse_setting('is_root') = 'true'
           or e.organization_id = any(hse_setting_ids('organization_ids'))
           or e.id = any(hse_setting_ids('establishment_ids'))
       )
    returning d.id into claimed;
    return claimed;
end
$$;
revoke execute on function hse_claim_device(bytea, uuid) from public;
grant execute on function hse_claim_device(bytea, uuid) to hse_api;

-- --- the second lock ---

alter table device_claims enable row level security;
create policy reach on device_claims to hse_api using (exists (select from devices d where d.id = device_id));
grant select (device_id), insert (device_id, code_hash, created_by), update (code_hash, created_by), delete on device_claims to hse_api;
