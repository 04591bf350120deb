-- Hours are stored as time goes by, so those of one device lie on as many pages as it has hours. A year of them is read from the index
-- alone, where they lie side by side; it does what the one that TimescaleDB made for the aggregate's devices did.
create index device_events_hourly_by_device on device_events_hourly (device_id, bucket, event_type)
    include (samples, value_count, value_sum, value_min, value_max, value_square_deviation, unit_min, unit_max);

do $$
declare
    made record;
begin
    for made in
        select indexes.schemaname, indexes.indexname
          from timescaledb_information.continuous_aggregates aggregates
          join pg_indexes indexes on indexes.schemaname = aggregates.materialization_hypertable_schema
           and indexes.tablename = aggregates.materialization_hypertable_name
         where aggregates.view_schema = 'public' and aggregates.view_name = 'device_events_hourly'
           and indexes.indexdef like '%(device_id, bucket DESC)'
    loop
        execute format('drop index %I.%I', made.schemaname, made.indexname);
    end loop;
end
$$;
