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

-- --- erased guests ---

-- Nobody books on for a guest who was erased, either; what is emptied of his bookings may be. The lock keeps him from being erased
-- before this is committed.
create or replace function check_booked_guest() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
begin
    if tg_op = 'UPDATE'
       and (new.guest_id, new.area_id, new.check_in, new.check_out, new.num_guests)
           is not distinct from (old.guest_id, old.area_id, old.check_in, old.check_out, old.num_guests)
       and (new.special_requests is null or new.special_requests is not distinct from old.special_requests)
       and (new.metadata = '{}' or new.metadata = old.metadata) then
        return new;
    end if;
    if (select erased_at from guests where id = new.guest_id for share) is not null then
        raise exception 'a guest who was erased is not booked for'
            using errcode = 'check_violation', constraint = 'bookings_guest_was_erased';
    end if;
    return new;
end
$$;
drop trigger bookings_check_guest on bookings;
create trigger bookings_check_guest
    before insert or update of guest_id, area_id, check_in, check_out, num_guests, special_requests, metadata on bookings
    for each row execute function check_booked_guest();
