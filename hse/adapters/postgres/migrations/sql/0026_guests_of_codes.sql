-- --- whose a door code is ---

-- A booking that is given to another guest gets other codes: who had the first ones may know them.
alter table door_lock_codes add column guest_id uuid;
comment on column door_lock_codes.guest_id is 'whose code it is; null of a backup code that nobody has';

update door_lock_codes c set guest_id = b.guest_id from bookings b where b.id = c.booking_id and c.ended_at is null;

-- Whoever gives a code to a booking gives it to the guest of that moment, and to no later one.
create function give_code_to_guest() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
begin
    new.guest_id := (select b.guest_id from bookings b where b.id = new.booking_id);
    return new;
end
$$;
create trigger door_lock_codes_give before insert or update of booking_id on door_lock_codes
    for each row execute function give_code_to_guest();

-- --- what a calendar shows ---

create or replace function hse_booking_calendar_stays(area uuid, token bytea, since timestamptz, stays_max integer)
    returns table (booking_id uuid, check_in timestamptz, check_out timestamptz, status text, updated_at timestamptz, version bigint)
    language sql stable security definer set search_path = public, pg_temp as $$
    select * from (
        select b.id, b.check_in, b.check_out, b.status, b.updated_at, b.version
          from bookings b
         where b.area_id = area and b.status <> 'cancelled' and b.check_out >= since
           and exists (select from booking_calendars c where c.area_id = area and c.token_hash = token)
         -- Those that are not over, the next one first; behind them, without a first key, the others, the newest first.
         order by case when b.check_out > now() then b.check_in end, b.check_out desc
         limit stays_max
    ) shown order by check_in
$$;
