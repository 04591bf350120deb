-- Events on plain PostgreSQL: one partition a UTC day, rollups recomputed where a drain marked them dirty.

create function event_storage() returns text language sql immutable parallel safe as $$ select 'partitions' $$;

create table device_events (
    time        timestamptz not null,
    device_id   uuid not null,
    event_type  text not null,
    value       double precision,
    unit        text,
    metadata    jsonb,
    source      text
) partition by range (time);

create index device_events_device_time on device_events (device_id, time desc);

create table rollup_dirty (
    device_id  uuid not null,
    bucket     timestamptz not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000);

create table rollup_hourly (
    bucket       timestamptz not null,
    device_id    uuid not null,
    event_type   text not null,
    samples      bigint not null,
    value_count  bigint not null,
    value_sum    double precision,
    value_avg    double precision,
    value_min    double precision,
    value_max    double precision,
    primary key (device_id, bucket, event_type)
) with (fillfactor = 90);

create table rollup_daily (like rollup_hourly including all) with (fillfactor = 80);

-- open_from: rollups hold what is before, the views compute the rest from events. raw_from: events before it were
-- dropped, so a rollup there is final: recomputing it from the little that is left would lose it.
create table rollup_state (
    is_only    boolean primary key default true check (is_only),
    open_from  timestamptz not null default '-infinity',
    raw_from   timestamptz not null default '-infinity'
);
insert into rollup_state default values;

create view device_events_hourly as
    select bucket, device_id, event_type, samples, value_count, value_sum, value_avg, value_min, value_max
      from rollup_hourly
     where bucket < (select open_from from rollup_state)
    union all
    select date_trunc('hour', time, 'UTC'), device_id, event_type, count(*), count(value), sum(value), avg(value),
           min(value), max(value)
      from device_events
     where time >= (select open_from from rollup_state)
     group by 1, 2, 3;

create view device_events_daily as
    select bucket, device_id, event_type, samples, value_count, value_sum, value_avg, value_min, value_max
      from rollup_daily
     where bucket < (select date_trunc('day', open_from, 'UTC') from rollup_state)
    union all
    select date_trunc('day', bucket, 'UTC'), device_id, event_type, sum(samples)::bigint, sum(value_count)::bigint,
           sum(value_sum), sum(value_sum) / nullif(sum(value_count), 0), min(value_min), max(value_max)
      from device_events_hourly
     where bucket >= (select date_trunc('day', open_from, 'UTC') from rollup_state)
     group by 1, 2, 3;

create function event_partition_name(day timestamptz) returns text language sql stable
    return 'device_events_p' || to_char(day at time zone 'UTC', 'YYYYMMDD');

-- Makes the partitions of every UTC day that [from_time, to_time] touches and says how many it made. A partition is
-- made beside the table and then attached: ATTACH takes SHARE UPDATE EXCLUSIVE on the parent, which lets COPY go on,
-- where CREATE TABLE ... PARTITION OF would stop it. SECURITY DEFINER: the drain's role may not create tables.
create function ensure_event_partitions(from_time timestamptz, to_time timestamptz) returns integer
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp set timezone = 'UTC' as $$
declare
    first_day timestamptz := date_trunc('day', from_time);
    last_day  timestamptz := date_trunc('day', to_time);
    day       timestamptz;
    partition text;
    num_made  integer := 0;
begin
    if from_time is null or to_time is null or not isfinite(from_time) or not isfinite(to_time) or from_time > to_time
       or last_day - first_day > interval '3660 days' or extract(year from from_time) < 1
       or extract(year from to_time) > 9999 then
        raise exception 'cannot make event partitions from % to %', from_time, to_time
            using errcode = 'invalid_parameter_value';
    end if;
    for day in select generate_series(first_day, last_day, interval '1 day') loop
        partition := public.event_partition_name(day);
        continue when public.is_event_partition(partition);
        perform pg_advisory_xact_lock(hashtext('hse.event_partitions'));
        continue when public.is_event_partition(partition);
        if to_regclass('public.' || partition) is null then
            execute format('create table public.%I (like public.device_events including all)', partition);
        elsif exists (select from pg_inherits where inhrelid = to_regclass('public.' || partition)) then
            -- An interrupted drop left it half detached: neither routed to nor attachable before this.
            execute format('alter table public.device_events detach partition public.%I finalize', partition);
        end if;
        execute format('alter table public.device_events attach partition public.%I for values from (%L) to (%L)',
                       partition, day, day + interval '1 day');
        num_made := num_made + 1;
    end loop;
    return num_made;
end
$$;

create function is_event_partition(partition text) returns boolean language sql stable as $$
    select exists (select from pg_inherits
                    where inhparent = 'public.device_events'::regclass
                      and inhrelid = to_regclass('public.' || partition) and not inhdetachpending)
$$;

-- Partitions, attached or left over from an interrupted drop, whose day ended at or before `until`.
create function expired_event_partitions(until timestamptz)
    returns table (partition_name text, ends_at timestamptz, is_attached boolean, is_detach_pending boolean)
    language sql stable as $$
    select c.relname::text, p.ends_at, i.inhrelid is not null, coalesce(i.inhdetachpending, false)
      from pg_class c
      join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'public'
      left join pg_inherits i on i.inhrelid = c.oid and i.inhparent = 'public.device_events'::regclass
     cross join lateral (
            select (to_date(right(c.relname, 8), 'YYYYMMDD') + 1)::timestamp at time zone 'UTC' as ends_at) p
     where c.relkind = 'r' and c.relname ~ '^device_events_p[0-9]{8}$' and p.ends_at <= until
     order by p.ends_at
$$;

-- Marks say "recompute", so one of equals is enough. Returns how many were removed.
create function compact_rollup_marks() returns bigint language plpgsql as $$
declare
    num_removed bigint;
begin
    perform pg_advisory_xact_lock(hashtext('hse.rollups'));
    delete from rollup_dirty d
     using (select device_id, bucket, min(ctid) as kept from rollup_dirty group by 1, 2 having count(*) > 1) k
     where d.device_id = k.device_id and d.bucket = k.bucket and d.ctid <> k.kept;
    get diagnostics num_removed = row_count;
    return num_removed;
end
$$;

-- Takes up to `marks_max` marks of hours before `before`, recomputes those hours from events and their days from hours,
-- and returns how many marks it took; when none are left the views read rollups up to `before`. All in the caller's
-- transaction: a crash puts the marks back. A drain commits its events and marks together, so a mark that is seen has
-- its events seen; one that commits later stays for the next call. The lock keeps a second refresher from picking the
-- marks that a first one holds: it would find them gone, and take the table for worked off while others are left.
create function refresh_rollups(before timestamptz, marks_max integer) returns integer language plpgsql as $$
declare
    marked_devices uuid[];
    marked_hours   timestamptz[];
    num_taken      integer;
begin
    perform pg_advisory_xact_lock(hashtext('hse.rollups'));
    with taken as (
        delete from rollup_dirty
         where ctid = any (array(select ctid from rollup_dirty where bucket < before limit marks_max))
        returning device_id, date_trunc('hour', bucket, 'UTC') as hour)
    select count(*), array_agg(device_id), array_agg(hour) into num_taken, marked_devices, marked_hours from taken;

    insert into rollup_hourly
    select m.hour, m.device_id, e.*
      from (select distinct device_id, hour from unnest(marked_devices, marked_hours) as marks (device_id, hour)
             where hour >= (select raw_from from rollup_state)) m
     cross join lateral (
            select event_type, count(*), count(value), sum(value), avg(value), min(value), max(value)
              from device_events
             where device_id = m.device_id and time >= m.hour and time < m.hour + interval '1 hour'
             group by event_type) e
    on conflict (device_id, bucket, event_type) do update
       set (samples, value_count, value_sum, value_avg, value_min, value_max)
         = (excluded.samples, excluded.value_count, excluded.value_sum, excluded.value_avg, excluded.value_min,
            excluded.value_max);

    insert into rollup_daily
    select m.day, m.device_id, h.*
      from (select distinct device_id, date_trunc('day', hour, 'UTC') as day
              from unnest(marked_devices, marked_hours) as marks (device_id, hour)) m
     cross join lateral (
            select event_type, sum(samples)::bigint, sum(value_count)::bigint, sum(value_sum),
                   sum(value_sum) / nullif(sum(value_count), 0), min(value_min), max(value_max)
              from rollup_hourly
             where device_id = m.device_id and bucket >= m.day and bucket < m.day + interval '24 hours'
             group by event_type) h
    on conflict (device_id, bucket, event_type) do update
       set (samples, value_count, value_sum, value_avg, value_min, value_max)
         = (excluded.samples, excluded.value_count, excluded.value_sum, excluded.value_avg, excluded.value_min,
            excluded.value_max);

    if num_taken < marks_max then
        update rollup_state set open_from = before where open_from < before;
    end if;
    return num_taken;
end
$$;

-- Nothing before `until` is recomputed any more: called when the events before it are about to be dropped, with the
-- marks before it refreshed in the same transaction.
create function close_rollups(until timestamptz) returns void language sql as $$
    select pg_advisory_xact_lock(hashtext('hse.rollups'));
    update rollup_state set raw_from = until where raw_from < until;
$$;

-- Statistics know the rows of the last vacuum or analyze, counters those since the last crash: the larger is nearer.
create function event_count_estimate() returns bigint language sql stable as $$
    select coalesce(sum(greatest(c.reltuples::bigint, pg_stat_get_live_tuples(c.oid), 0)), 0)::bigint
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'public.device_events'::regclass
$$;

create function event_bytes() returns bigint language sql stable as $$
    select coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint
      from pg_inherits where inhparent = 'public.device_events'::regclass
$$;
