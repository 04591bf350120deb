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
