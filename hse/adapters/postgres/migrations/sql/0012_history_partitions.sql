-- Reading the history on plain PostgreSQL: what the hourly rollups keep more, and what is left when they are refreshed.

alter table rollup_hourly
    add column unit_min text,
    add column unit_max text,
    add column value_square_deviation double precision;
comment on column rollup_hourly.value_square_deviation is
    'the sum of the squares of what values differ from value_avg by: unlike a sum of squares it loses nothing for large values';
comment on column rollup_hourly.unit_max is 'other than unit_min where the hour has several units';

alter table rollup_daily add column unit_min text, add column unit_max text;

create or replace view device_events_hourly as
    select bucket, device_id, event_type, samples, value_count, value_sum, value_avg, value_min, value_max, unit_min, unit_max,
           value_square_deviation
      from rollup_hourly
     where bucket < (select open_from from rollup_state)
    union all
    select date_trunc('hour', time, 'UTC'), device_id, event_type, count(*), count(countable(value)), sum(countable(value)),
           avg(countable(value)), min(countable(value)), max(countable(value)), min(unit), max(unit),
           var_pop(countable(value)) * count(countable(value))
      from device_events
     where time >= (select open_from from rollup_state)
     group by 1, 2, 3;

create or replace view device_events_daily as
    select bucket, device_id, event_type, samples, value_count, value_sum, value_avg, value_min, value_max, unit_min, unit_max
      from rollup_daily
     where bucket < (select date_trunc('day', open_from, 'UTC') from rollup_state)
    union all
    select date_trunc('day', bucket, 'UTC'), device_id, event_type, sum(samples)::bigint, sum(value_count)::bigint,
           sum(value_sum), sum(value_sum) / nullif(sum(value_count), 0), min(value_min), max(value_max), min(unit_min),
           max(unit_max)
      from device_events_hourly
     where bucket >= (select date_trunc('day', open_from, 'UTC') from rollup_state)
     group by 1, 2, 3;

-- As 0003 has it, with the new columns.
create or replace function refresh_rollups(before timestamptz, marks_max integer) returns integer language plpgsql as $$
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

    insert into rollup_hourly (bucket, device_id, event_type, samples, value_count, value_sum, value_avg, value_min, value_max,
                               unit_min, unit_max, value_square_deviation)
    select m.hour, m.device_id, e.*
      from (select distinct device_id, hour from unnest(marked_devices, marked_hours) as marks (device_id, hour)
             where hour >= (select raw_from from rollup_state)) m
     cross join lateral (
            select event_type, count(*), count(countable(value)), sum(countable(value)), avg(countable(value)),
                   min(countable(value)), max(countable(value)), min(unit), max(unit),
                   var_pop(countable(value)) * count(countable(value))
              from device_events
             where device_id = m.device_id and time >= m.hour and time < m.hour + interval '1 hour'
             group by event_type) e
    on conflict (device_id, bucket, event_type) do update
       set (samples, value_count, value_sum, value_avg, value_min, value_max, unit_min, unit_max, value_square_deviation)
         = (excluded.samples, excluded.value_count, excluded.value_sum, excluded.value_avg, excluded.value_min,
            excluded.value_max, excluded.unit_min, excluded.unit_max, excluded.value_square_deviation);

    insert into rollup_daily (bucket, device_id, event_type, samples, value_count, value_sum, value_avg, value_min, value_max,
                              unit_min, unit_max)
    select m.day, m.device_id, h.*
      from (select distinct device_id, date_trunc('day', hour, 'UTC') as day
              from unnest(marked_devices, marked_hours) as marks (device_id, hour)) m
     cross join lateral (
            select event_type, sum(samples)::bigint, sum(value_count)::bigint, sum(value_sum),
                   sum(value_sum) / nullif(sum(value_count), 0), min(value_min), max(value_max), min(unit_min), max(unit_max)
              from rollup_hourly
             where device_id = m.device_id and bucket >= m.day and bucket < m.day + interval '24 hours'
             group by event_type) h
    on conflict (device_id, bucket, event_type) do update
       set (samples, value_count, value_sum, value_avg, value_min, value_max, unit_min, unit_max)
         = (excluded.samples, excluded.value_count, excluded.value_sum, excluded.value_avg, excluded.value_min,
            excluded.value_max, excluded.unit_min, excluded.unit_max);

    if num_taken < marks_max then
        update rollup_state set open_from = before where open_from < before;
    end if;
    return num_taken;
end
$$;

-- What was rolled up before gets the new columns as far as its events are still there.
insert into rollup_dirty (device_id, bucket)
select distinct device_id, bucket from rollup_hourly where bucket >= (select raw_from from rollup_state);

create view named_hours as select * from rollup_hourly where device_id = any((select hse_setting_ids('device_ids'))::uuid[]);
create view named_days as select * from rollup_daily where device_id = any((select hse_setting_ids('device_ids'))::uuid[]);

create function history_state(
    out hours_until timestamptz, out days_until timestamptz, out kept_from timestamptz, out snapshot text
) language sql stable security definer set search_path = pg_catalog, public, pg_temp as $$
    select least(settled, greatest(open_from, '0001-01-01 00:00+00')),
           date_trunc('day', least(settled, greatest(open_from, '0001-01-01 00:00+00')), 'UTC'),
           greatest(raw_from, '0001-01-01 00:00+00'),
           pg_current_snapshot()::text
      from public.rollup_state, date_trunc('hour', now() - interval '5 minutes', 'UTC') as settled
$$;

-- `refreshed` is a snapshot from before the rollups were refreshed: what it shows has been counted since.
create function forget_late_hours(refreshed pg_snapshot) returns bigint language plpgsql as $$
declare
    num_forgotten bigint;
begin
    delete from late_hours
     where marked_at < now() - interval '10 minutes' and pg_visible_in_snapshot(marked_by::text::xid8, refreshed);
    get diagnostics num_forgotten = row_count;
    return num_forgotten;
end
$$;
