-- Hours are stored as time goes by, so those of one device lie on as many pages as it has hours. A year of them is read from the index
-- alone, where they lie side by side.
create unique index rollup_hourly_by_device on rollup_hourly (device_id, bucket, event_type)
    include (samples, value_count, value_sum, value_min, value_max, value_square_deviation, unit_min, unit_max);
alter table rollup_hourly drop constraint rollup_hourly_pkey, add primary key using index rollup_hourly_by_device;
