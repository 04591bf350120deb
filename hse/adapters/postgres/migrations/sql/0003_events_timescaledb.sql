-- Events on TimescaleDB: a hypertable of one-day chunks, columnstore after 7 days, continuous aggregates in UTC.

create function event_storage() returns text language sql immutable parallel safe as $$ select 'timescaledb' $$;

create table device_events (
    time        timestamptz not null,
    device_id   uuid not null,
    event_type  text not null,
    value       double precision,
    unit        text,
    metadata    jsonb,
    source      text
);

select create_hypertable('device_events', by_range('time', interval '1 day'), create_default_indexes => false);

create index device_events_device_time on device_events (device_id, time desc);

alter table device_events set (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'device_id', timescaledb.orderby = 'time desc');
call add_columnstore_policy('device_events', after => interval '7 days');

-- materialized_only = false: the hours that no refresh has reached yet are computed from events when read, as the views
-- of the plain form do. A late event lands before that point; the refresh policies reach back over the whole retention,
-- recompute only what was changed, and so count it. Buckets of fixed UTC length: those of a time zone lose rows when
-- one write spans several chunks (timescale/timescaledb#10296).
create materialized view device_events_hourly
  with (timescaledb.continuous, timescaledb.materialized_only = false) as
select time_bucket(interval '1 hour', time) as bucket, device_id, event_type, count(*) as samples,
       count(value) as value_count, sum(value) as value_sum, avg(value) as value_avg, min(value) as value_min,
       max(value) as value_max
  from device_events
 group by 1, 2, 3
  with no data;

create materialized view device_events_daily
  with (timescaledb.continuous, timescaledb.materialized_only = false) as
select time_bucket(interval '1 day', bucket) as bucket, device_id, event_type, sum(samples)::bigint as samples,
       sum(value_count)::bigint as value_count, sum(value_sum) as value_sum,
       sum(value_sum) / nullif(sum(value_count), 0) as value_avg, min(value_min) as value_min,
       max(value_max) as value_max
  from device_events_hourly
 group by 1, 2, 3
  with no data;

-- Chunks make themselves.
create function ensure_event_partitions(from_time timestamptz, to_time timestamptz) returns integer
    language sql immutable as $$ select 0 $$;

-- Sets the retention, and the reach of the refresh policies two days short of it: a refresh of days whose events were
-- dropped would empty their aggregates.
create function set_event_retention(retention interval) returns void language plpgsql as $$
begin
    perform remove_retention_policy('device_events', if_exists => true);
    perform remove_continuous_aggregate_policy('device_events_hourly', if_exists => true);
    perform remove_continuous_aggregate_policy('device_events_daily', if_exists => true);
    perform add_retention_policy('device_events', drop_after => retention);
    perform add_continuous_aggregate_policy('device_events_hourly', start_offset => retention - interval '2 days',
        end_offset => interval '1 hour', schedule_interval => interval '1 minute');
    perform add_continuous_aggregate_policy('device_events_daily', start_offset => retention - interval '2 days',
        end_offset => interval '1 day', schedule_interval => interval '10 minutes');
end
$$;

create function event_retention() returns interval language sql stable as $$
    select (config ->> 'drop_after')::interval from timescaledb_information.jobs
     where proc_name = 'policy_retention' and hypertable_name = 'device_events'
$$;

-- Statistics know the rows of the last vacuum, analyze or compression, counters those since the last crash.
create function event_count_estimate() returns bigint language sql as $$
    select coalesce(sum(greatest(approximate_row_count(chunk), pg_stat_get_live_tuples(chunk))), 0)::bigint
      from show_chunks('device_events') as chunk
$$;

create function event_bytes() returns bigint language sql as $$ select coalesce(hypertable_size('device_events'), 0) $$;

select set_event_retention(interval '730 days');
