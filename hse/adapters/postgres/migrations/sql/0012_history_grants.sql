-- hours_until, days_until: how far the stored aggregates reach, late hours aside. kept_from: events before it were dropped, so what
-- the aggregates say of them is final. snapshot: what a reader who asks now has seen.
revoke execute on function hse_name_devices(uuid[]), history_state() from public;
grant execute on function hse_name_devices(uuid[]), history_state() to hse_api;
grant select on named_events, named_hours, named_days, named_late_hours to hse_api;
