-- Reading the history. What is the same in both forms; the rest follows in 0012_history_<form>.sql.

insert into actions (name, resource, action, category, description) values
    ('read_telemetry', 'device', 'read_telemetry', 'device_management', 'See what devices report: state, events, history');

insert into permissions (role_id, action_name)
select roles.id, 'read_telemetry' from roles where roles.type = 'system';

-- What aggregates count. The square of a larger number, or the sum of a few, is more than a double holds, and one device that
-- sent it would keep everybody's aggregates from being refreshed.
create function countable(value double precision) returns double precision language sql immutable parallel safe
    return case when abs(value) <= 1e100 then value end;

-- Hours that were over when an event of theirs was stored: the aggregates do not have it before their next refresh, nor does what
-- was read before. By `marked_by` a reader knows whether what he kept has seen it. Written by the core, in the transaction that
-- stores the event; forgotten by the worker when no reader can have kept anything so long.
create table late_hours (
    device_id  uuid not null,
    bucket     timestamptz not null,
    marked_by  bigint not null default pg_current_xact_id()::text::bigint,
    marked_at  timestamptz not null default now()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000);
create index late_hours_device on late_hours (device_id, bucket);

-- The second lock for what has no row-level security. The api's role has no right on the events and their aggregates, only on views
-- that show those of named devices; and a transaction can name those only that row-level security shows it. So a query
-- that forgets whom it is for reads nothing. Naming counts for one transaction, and takes the place of what was named before.
create function hse_name_devices(ids uuid[]) returns uuid[] language sql as $$
    select shown.ids
      from (select coalesce(array_agg(id), '{}') as ids from devices where id = any(ids)) shown,
           set_config('hse.device_ids', shown.ids::text, true)
$$;

create view named_events as
    select time, device_id, event_type, value, unit, metadata, source
      from device_events where device_id = any((select hse_setting_ids('device_ids'))::uuid[]);

create view named_late_hours as
    select device_id, bucket, marked_by, marked_at
      from late_hours where device_id = any((select hse_setting_ids('device_ids'))::uuid[]);

do $$
begin
    if exists (select from pg_roles where rolname = 'hse_ingest') then
        -- What ended is told from what did not by COPY's WHERE, which reads the column.
        grant insert, select (bucket) on late_hours to hse_ingest;
    end if;
end
$$;
