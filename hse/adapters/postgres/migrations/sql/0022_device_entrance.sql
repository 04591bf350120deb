-- What devices ask the ingest core for, which asks here: their attributes, to be claimed, and what the children of a gateway are called.

-- --- a device lets itself be claimed ---

-- A code that no person gave has nobody who gave it, and an end.
alter table device_claims
    alter column created_by drop not null,
    add column expires_at timestamptz,
    add constraint device_claims_ends_or_is_given check (created_by is not null or expires_at is not null);

-- As before, and not with a code that is over.
create or replace function hse_claim_device(claim_code_hash bytea, at_establishment uuid) returns uuid
    language plpgsql security definer set search_path = public, pg_temp as $$
declare
    claimed uuid;
begin
    update devices d
       set establishment_id = e.id
      from device_claims c, establishments e
     where c.code_hash = claim_code_hash and d.id = c.device_id and d.establishment_id is null
       and (c.expires_at is null or c.expires_at > now())
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

-- Has a device that stands nowhere yet be claimed by who knows a code, for so long. The answer: offered · placed (it has its place) ·
-- coded (people gave it a code, which stands) · taken (the code waits for another device) · unknown. All but the first change nothing.
create function hse_offer_claim(of_device uuid, offered_code_hash bytea, duration_ms bigint) returns text
    language plpgsql security definer set search_path = public, pg_temp as $$
declare
    offering devices;
    until timestamptz := now() + least(greatest(duration_ms, 1), 31::bigint * 24 * 3600 * 1000) * interval '1 millisecond';
    before bytea;
begin
    select * into offering from devices d where d.id = of_device and d.is_enabled for update;
    if not found then
        return 'unknown';
    end if;
    if offering.establishment_id is not null then
        return 'placed';
    end if;
    if exists (select from device_claims c where c.device_id = of_device and c.created_by is not null) then
        return 'coded';
    end if;
    delete from device_claims c where c.code_hash = offered_code_hash and c.device_id <> of_device and c.expires_at <= now();
    select c.code_hash into before from device_claims c where c.device_id = of_device;
    begin
        insert into device_claims (device_id, code_hash, expires_at) values (of_device, offered_code_hash, until)
        on conflict (device_id) do update set code_hash = excluded.code_hash, expires_at = excluded.expires_at, created_at = now();
    exception
        when unique_violation then return 'taken';
    end;
    -- That it goes on offering the same is no news.
    if before is distinct from offered_code_hash then
        insert into audit_entries (actor_kind, action, entity_type, entity_id, organization_id)
        values ('anonymous', 'device.offer_claim', 'device', of_device::text, offering.organization_id);
    end if;
    return 'offered';
end
$$;
revoke execute on function hse_offer_claim(uuid, bytea, bigint) from public;

-- A code that a person gives has no end, whatever there was before.
grant update (expires_at) on device_claims to hse_api;

-- --- the core's role ---

do $$
begin
    if exists (select from pg_roles where rolname = 'hse_ingest') then
        grant execute on function hse_offer_claim(uuid, bytea, bigint) to hse_ingest;
        grant select (reported) on device_attributes to hse_ingest;
        grant select (name, serial_number) on devices to hse_ingest;
    end if;
end
$$;
