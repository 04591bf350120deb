-- Reading the history on TimescaleDB. A continuous aggregate cannot be given columns, so the two are made anew, and their policies
-- fill them from the events that are kept.

drop materialized view device_events_daily;
drop materialized view device_events_hourly;

create materialized view device_events_hourly
  with (timescaledb.continuous, timescaledb.materialized_only = false) as
select time_bucket(interval '1 hour', time) as bucket, device_id, event_type, count(*) as samples,
       count(countable(value)) as value_count, sum(countable(value)) as value_sum, avg(countable(value)) as value_avg,
       min(countable(value)) as value_min, max(countable(value)) as value_max, min(unit) as unit_min, max(unit) as unit_max,
       var_pop(countable(value)) * count(countable(value)) as value_square_deviation
  from device_events
 group by 1, 2, 3
  with no data;

create materialized view device_events_daily
  with (timescaledb.continuous, timescaledb.materialized_only = false) as
select time_bucket(interval '1 day', bucket) as bucket, device_id, event_type, sum(samples)::bigint as samples,
       sum(value_count)::bigint as value_count, sum(value_sum) as value_sum,
       sum(value_sum) / nullif(sum(value_count), 0) as value_avg, min(value_min) as value_min,
       max(value_max) as value_max, min(unit_min) as unit_min, max(unit_max) as unit_max
  from device_events_hourly
 group by 1, 2, 3
  with no data;

select set_event_retention(event_retention());

-- The aggregates as they are stored, without what TimescaleDB would compute from events: history_state() says how far they reach,
-- and a reader takes the rest from the events himself, for the hours that he needs.
do $$
declare
    made record;
begin
    for made in
        select case view_name when 'device_events_hourly' then 'named_hours' else 'named_days' end as name,
               materialization_hypertable_schema as schema_name, materialization_hypertable_name as table_name
          from timescaledb_information.continuous_aggregates
         where view_name in ('device_events_hourly', 'device_events_daily') and view_schema = 'public'
    loop
        execute format(
            'create view public.%I as select * from %I.%I where device_id = any((select hse_setting_ids(''device_ids''))::uuid[])',
            made.name, made.schema_name, made.table_name);
    end loop;
end
$$;

create function aggregate_reaches(aggregate name) returns timestamptz language sql stable as $$
    select case
               when watermark < 0 or watermark > 253402300799000000 then '0001-01-01 00:00+00'
               else '1970-01-01 00:00+00'::timestamptz + watermark * interval '1 microsecond'
           end
      from timescaledb_information.continuous_aggregates made
      join _timescaledb_catalog.hypertable stored
        on stored.schema_name = made.materialization_hypertable_schema and stored.table_name = made.materialization_hypertable_name
     cross join lateral _timescaledb_functions.cagg_watermark(stored.id) as watermark
     where made.view_schema = 'public' and made.view_name = aggregate
$$;

-- Refreshes reach back to two days short of the retention (0003), so what is older is counted no more.
create function history_state(
    out hours_until timestamptz, out days_until timestamptz, out kept_from timestamptz, out snapshot text
) language sql stable security definer set search_path = pg_catalog, public, pg_temp as $$
    select least(settled, hours), least(date_trunc('day', settled, 'UTC'), date_trunc('day', hours, 'UTC'), days),
           date_trunc('hour', now() - public.event_retention() + interval '2 days', 'UTC'), pg_current_snapshot()::text
      from date_trunc('hour', now() - interval '5 minutes', 'UTC') as settled,
           public.aggregate_reaches('device_events_hourly') as hours, public.aggregate_reaches('device_events_daily') as days
$$;

-- What both policies have had a run for, since. `refreshed` is of the plain form.
create function forget_late_hours(refreshed pg_snapshot) returns bigint language plpgsql as $$
declare
    num_forgotten bigint;
begin
    delete from late_hours
     where marked_at < now() - interval '10 minutes'
       and marked_at < (
           select min(case when ran.last_run_status = 'Success' then ran.last_run_started_at else '-infinity' end)
             from timescaledb_information.jobs made
             join timescaledb_information.job_stats ran using (job_id)
            where made.proc_name = 'policy_refresh_continuous_aggregate'
       ) - interval '10 minutes';
    get diagnostics num_forgotten = row_count;
    return num_forgotten;
end
$$;
