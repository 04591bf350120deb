-- The core answers GetDeviceStatus and GetDeviceEvents from what was stored, to callers who have the service token.
do $$
begin
    if exists (select from pg_roles where rolname = 'hse_ingest') then
        grant select on device_events to hse_ingest;
    end if;
end
$$;
