-- What the ingest core needs and nothing else: it may write events and never read them, and it cannot change who may
-- connect. An operator grants it: create role core login password '...' in role hse_ingest.
do $$
begin
    if not exists (select from pg_roles where rolname = 'hse_ingest') then
        create role hse_ingest nologin;
    end if;
exception
    -- Roles belong to the whole server: another database's migration may have made it meanwhile.
    when duplicate_object or unique_violation then null;
    when insufficient_privilege then raise notice 'no right to create the role hse_ingest: nothing is granted';
end
$$;

revoke execute on function ensure_event_partitions(timestamptz, timestamptz) from public;

do $$
begin
    if not exists (select from pg_roles where rolname = 'hse_ingest') then
        return;
    end if;
    grant usage on schema public to hse_ingest;
    grant select (id) on organizations to hse_ingest;
    grant select (id, organization_id, gateway_id, token_hash, is_enabled, updated_at) on devices to hse_ingest;
    grant select, insert, update on device_sequences, ingest_cursor to hse_ingest;
    grant insert on device_events, event_outbox to hse_ingest;
    grant select, insert, update, delete on dead_letters to hse_ingest;
    grant execute on function event_storage(), ensure_event_partitions(timestamptz, timestamptz) to hse_ingest;
    if event_storage() = 'partitions' then
        grant insert on rollup_dirty to hse_ingest;
    end if;
end
$$;
