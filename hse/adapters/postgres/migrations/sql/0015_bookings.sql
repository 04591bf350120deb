-- Guests and bookings. The database itself sees to it that no two live bookings of an area overlap; the worker checks guests in and
-- out, and does what follows from a booking: it finds the bookings to look at in `booking_queue`.

create extension if not exists btree_gist;

insert into actions (name, resource, action, category, description, exclusive_to, hierarchy_max) values
    ('create_guest', 'guest', 'create', 'booking_management', 'Register guests', null, 32767),
    ('read_guest', 'guest', 'read', 'booking_management', 'See guests, without what is personal', null, 32767),
    ('read_guest_personal_data', 'guest', 'read_personal_data', 'booking_management', 'See, search and export the personal data of guests', null, 32767),
    ('update_guest', 'guest', 'update', 'booking_management', 'Change guests and who accompanies them', null, 32767),
    ('erase_guest', 'guest', 'erase', 'booking_management', 'Erase the personal data of guests for good', null, 32767),
    ('create_booking', 'booking', 'create', 'booking_management', 'Book areas', null, 32767),
    ('read_booking', 'booking', 'read', 'booking_management', 'See bookings and what is free', null, 32767),
    ('update_booking', 'booking', 'update', 'booking_management', 'Confirm and change bookings', null, 32767),
    ('cancel_booking', 'booking', 'cancel', 'booking_management', 'Cancel bookings', null, 32767),
    ('delete_booking', 'booking', 'delete', 'booking_management', 'Delete bookings', null, 32767),
    ('update_booking_settings', 'booking_settings', 'update', 'booking_management', 'Change how an establishment takes bookings', null, 32767),
    ('manage_booking_calendar', 'booking_calendar', 'manage', 'booking_management', 'Give out, renew and revoke the calendar links of areas', null, 32767);

insert into permissions (role_id, action_name)
select roles.id, actions.name
  from roles, actions
 where roles.type = 'system' and roles.name in ('root', 'partner', 'admin') and actions.category = 'booking_management';

-- --- guests ---

-- Where he was registered says who may see him, beside those at whose places he has a booking; without an establishment he is a guest of
-- the organisation as a whole. An erased guest stays as a row without anything of him, so that his bookings still count.
create table guests (
    id                uuid primary key default gen_random_uuid(),
    organization_id   uuid not null references organizations,
    establishment_id  uuid,
    first_name        text not null check (char_length(first_name) <= 100),
    last_name         text not null check (char_length(last_name) <= 100),
    email             text check (char_length(email) between 3 and 254),
    phone             text check (char_length(phone) between 1 and 50),
    document_type     text check (char_length(document_type) between 1 and 50),
    document_number   text check (char_length(document_number) between 1 and 100),
    country           text check (country ~ '^[A-Z]{2}$'),
    language          text not null default 'es' check (language in ('es', 'en')),
    metadata          jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    erased_at         timestamptz,
    version           bigint not null default 1,
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now(),
    unique (id, organization_id),
    constraint guests_establishment_is_of_the_organization foreign key (establishment_id, organization_id)
        references establishments (id, organization_id),
    constraint guests_document_is_whole check ((document_type is null) = (document_number is null)),
    constraint guests_have_a_name check (erased_at is not null or (first_name <> '' and last_name <> '')),
    constraint guests_erased_hold_nothing check (
        erased_at is null
        or (first_name = '' and last_name = '' and metadata = '{}'
            and coalesce(email, phone, document_type, document_number, country) is null)
    )
);
comment on column guests.country is 'ISO 3166-1, two letters';

create index guests_organization on guests (organization_id, created_at, id);
create index guests_establishment on guests (establishment_id, created_at, id) where establishment_id is not null;
create index guests_document on guests (organization_id, document_number) where document_number is not null;

create trigger guests_touch before update on guests
    for each row execute function touch_version();

-- Who erases a guest waits for who books for him, and the other way round (below): an erased one has no stay before him.
create function check_guest_erasure() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
begin
    if exists (
        select from bookings b
         where b.guest_id = new.id
           and (b.status in ('confirmed', 'in-progress') or (b.status = 'pending' and b.check_out > now()))
    ) then
        raise exception 'a guest who is expected is not erased'
            using errcode = 'check_violation', constraint = 'guests_expected';
    end if;
    return new;
end
$$;
create trigger guests_check_erasure before update of erased_at on guests
    for each row when (old.erased_at is null and new.erased_at is not null) execute function check_guest_erasure();

-- What others hold of him goes, too, also where who erases him does not reach. Whatever keeps more of a guest adds a trigger like this.
create function empty_erased_guest() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
begin
    delete from guest_companions where new.id in (guest_id, companion_id);
    update bookings
       set special_requests = null, metadata = '{}',
           cancellation_reason = case when cancelled_by is null then cancellation_reason end
     where guest_id = new.id;
    return null;
end
$$;
create trigger guests_erased after update of erased_at on guests
    for each row when (old.erased_at is null and new.erased_at is not null) execute function empty_erased_guest();

-- Each pair stands here twice, once from each side: neither row can be without the other when a transaction ends.
create table guest_companions (
    guest_id         uuid not null references guests,
    companion_id     uuid not null references guests,
    organization_id  uuid not null,
    relationship     text not null check (char_length(relationship) between 1 and 50),
    added_at         timestamptz not null default now(),
    primary key (guest_id, companion_id),
    constraint guest_companions_not_himself check (guest_id <> companion_id),
    constraint guest_companions_are_of_one_organization foreign key (companion_id, organization_id)
        references guests (id, organization_id),
    constraint guest_companions_are_reciprocal foreign key (companion_id, guest_id)
        references guest_companions (guest_id, companion_id) deferrable initially deferred
);
comment on column guest_companions.relationship is 'what the companion is to the guest';

-- --- settings ---

-- One row for each establishment, made with it.
create table booking_settings (
    establishment_id            uuid primary key references establishments on delete cascade,
    organization_id             uuid not null,
    check_in_margin_minutes     integer not null default 60 check (check_in_margin_minutes between 0 and 10080),
    check_out_margin_minutes    integer not null default 30 check (check_out_margin_minutes between 0 and 10080),
    no_show_grace_minutes       integer check (no_show_grace_minutes between 0 and 10080),
    code_deadline_minutes       integer not null default 60 check (code_deadline_minutes between 0 and 10080),
    code_lead_hours             integer not null default 24 check (code_lead_hours between 0 and 720),
    check_out_reminder_minutes  integer not null default 120 check (check_out_reminder_minutes between 0 and 10080),
    max_code_usages             integer check (max_code_usages between 1 and 100000),
    version                     bigint not null default 1,
    created_at                  timestamptz not null default now(),
    updated_at                  timestamptz not null default now(),
    constraint booking_settings_establishment_is_of_the_organization foreign key (establishment_id, organization_id)
        references establishments (id, organization_id) on delete cascade
);
comment on column booking_settings.check_in_margin_minutes is 'a stay begins so long after the one before it ended, at least';
comment on column booking_settings.check_out_margin_minutes is 'a stay ends so long before the next one begins, at least';
comment on column booking_settings.no_show_grace_minutes is
    'a booking that nobody has confirmed so long after its check-in is released; null: never';
comment on column booking_settings.code_deadline_minutes is 'so long before check-in a door code must be on its lock';
comment on column booking_settings.code_lead_hours is 'so early before check-in a door code is put on its lock';
comment on column booking_settings.max_code_usages is 'how often a door code opens; null: as often as its holder likes';

create trigger booking_settings_touch before update on booking_settings
    for each row execute function touch_version();

create function add_booking_settings() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
begin
    insert into booking_settings (establishment_id, organization_id) values (new.id, new.organization_id);
    return null;
end
$$;
create trigger establishments_booking_settings after insert on establishments
    for each row execute function add_booking_settings();
insert into booking_settings (establishment_id, organization_id) select id, organization_id from establishments;

-- --- bookings ---

-- A stay is [check_in, check_out); the area is free for the next one from `free_from` on, which lies a margin later.
create table bookings (
    id                   uuid primary key default gen_random_uuid(),
    organization_id      uuid not null,
    establishment_id     uuid not null,
    area_id              uuid not null,
    guest_id             uuid not null,
    check_in             timestamptz not null,
    check_out            timestamptz not null,
    free_from            timestamptz not null,
    status               text not null default 'pending' check (
        status in ('pending', 'confirmed', 'in-progress', 'completed', 'cancelled')
    ),
    confirmation_code    text not null constraint bookings_confirmation_code unique check (char_length(confirmation_code) between 4 and 20),
    special_requests     text check (char_length(special_requests) <= 2000),
    num_guests           integer not null default 1 check (num_guests between 1 and 1000),
    metadata             jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    created_by           uuid,
    cancelled_at         timestamptz,
    cancelled_by         uuid,
    cancellation_reason  text check (char_length(cancellation_reason) <= 500),
    version              bigint not null default 1,
    created_at           timestamptz not null default now(),
    updated_at           timestamptz not null default now(),
    constraint bookings_establishment_is_of_the_organization foreign key (establishment_id, organization_id)
        references establishments (id, organization_id),
    constraint bookings_area_is_of_the_establishment foreign key (area_id, establishment_id)
        references areas (id, establishment_id),
    constraint bookings_guest_is_of_the_organization foreign key (guest_id, organization_id)
        references guests (id, organization_id),
    constraint bookings_end_after_they_begin check (check_in < check_out and check_out <= free_from),
    constraint bookings_cancelled_have_a_time check ((status = 'cancelled') = (cancelled_at is not null)),
    constraint bookings_do_not_overlap exclude using gist (area_id with =, tstzrange(check_in, free_from) with &&)
        where (status <> 'cancelled')
);
comment on column bookings.cancelled_by is 'null with a cancelled booking: it was released, as nobody had confirmed it';

create index bookings_area on bookings (area_id, check_in, id);
create index bookings_establishment on bookings (establishment_id, check_in, id);
create index bookings_organization on bookings (organization_id, check_in, id);
create index bookings_guest on bookings (guest_id, check_in, id);

create trigger bookings_touch before update on bookings
    for each row execute function touch_version();

-- Who changes when an area is taken waits for whoever else does: else two who want the same slot would each wait for the other, until
-- the database ends one of them. Held until the transaction ends.
create function lock_booked_area() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('hse booked area ' || new.area_id::text, 0));
    return new;
end
$$;
create trigger bookings_lock_area before insert or update of area_id, check_in, check_out, free_from, status on bookings
    for each row execute function lock_booked_area();

-- An erased guest is booked for no more. The lock keeps him from being erased before this is committed.
create function check_booked_guest() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
begin
    if (select erased_at from guests where id = new.guest_id for share) is not null then
        raise exception 'a guest who was erased is not booked for'
            using errcode = 'check_violation', constraint = 'bookings_guest_was_erased';
    end if;
    return new;
end
$$;
create trigger bookings_check_guest before insert or update of guest_id on bookings
    for each row execute function check_booked_guest();

-- The states and the ways between them, whoever writes. The times of a stay that has begun stay as they are, and so does the row.
create function check_booking_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        if old.status in ('in-progress', 'completed') then
            raise exception 'a booking that is % is kept', old.status
                using errcode = 'check_violation', constraint = 'bookings_begun_are_kept';
        end if;
        return old;
    end if;
    if new.status <> old.status and (old.status, new.status) not in (
        ('pending', 'confirmed'), ('pending', 'cancelled'), ('confirmed', 'in-progress'), ('confirmed', 'cancelled'),
        ('in-progress', 'completed')
    ) then
        raise exception 'a booking does not go from % to %', old.status, new.status
            using errcode = 'check_violation', constraint = 'bookings_status_follows';
    end if;
    if old.status not in ('pending', 'confirmed') and (
        (new.area_id, new.guest_id, new.check_in, new.check_out) is distinct from
        (old.area_id, old.guest_id, old.check_in, old.check_out)
    ) then
        raise exception 'a booking that is % is not changed', old.status
            using errcode = 'check_violation', constraint = 'bookings_begun_are_kept';
    end if;
    return new;
end
$$;
create trigger bookings_check_change before update or delete on bookings
    for each row execute function check_booking_change();

-- --- what happened to a booking ---

-- Written by a trigger, so that nothing that happened is missing, whichever process did it. Without a user it was the worker, and the
-- clock. It holds nothing of the guest, and stays when the booking is deleted.
create table booking_history (
    id                bigint generated always as identity primary key,
    booking_id        uuid not null,
    organization_id   uuid not null,
    establishment_id  uuid not null,
    at                timestamptz not null default now(),
    user_id           uuid,
    action            text not null check (
        action in ('created', 'changed', 'confirmed', 'checked_in', 'completed', 'cancelled', 'released', 'deleted')
    ),
    status            text not null,
    area_id           uuid not null,
    guest_id          uuid not null,
    check_in          timestamptz not null,
    check_out         timestamptz not null,
    num_guests        integer not null,
    changed           text[] not null default '{}'
);
comment on column booking_history.changed is 'which fields changed; the others of this row are as they are after it';
create index booking_history_booking on booking_history (booking_id, id);

create function write_booking_history() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
declare
    known bookings;
    done text;
    fields text[] := '{}';
begin
    known := case when tg_op = 'DELETE' then old else new end;
    if tg_op = 'UPDATE' then
        fields := array(
            select n.key from jsonb_each(to_jsonb(new)) n join jsonb_each(to_jsonb(old)) o using (key)
             where n.value is distinct from o.value and n.key not in ('version', 'updated_at', 'free_from') order by n.key
        );
        if fields = '{}' then
            return null;
        end if;
    end if;
    done := case
        when tg_op = 'INSERT' then 'created'
        when tg_op = 'DELETE' then 'deleted'
        when new.status = old.status then 'changed'
        when new.status = 'in-progress' then 'checked_in'
        when new.status = 'cancelled' and new.cancelled_by is null then 'released'
        else new.status
    end;
    insert into booking_history
        (booking_id, organization_id, establishment_id, user_id, action, status, area_id, guest_id, check_in, check_out,
         num_guests, changed)
    values
        (known.id, known.organization_id, known.establishment_id, hse_setting('user_id')::uuid, done, known.status, known.area_id,
         known.guest_id, known.check_in, known.check_out, known.num_guests, fields);
    return null;
end
$$;
create trigger bookings_history after insert or update or delete on bookings
    for each row execute function write_booking_history();

-- --- the worker's queue ---

-- When to look at which booking. Whoever changes something adds a row and waits for nobody; the worker takes the rows of a booking
-- away and leaves one that says when to look next. The worker's alone: the api's role has no right on it.
create table booking_queue (
    id          bigint generated always as identity primary key,
    booking_id  uuid not null,
    due_at      timestamptz not null default now(),
    tries       integer not null default 0
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
comment on column booking_queue.tries is 'how often in a row something that follows from the booking could not be done';
create index booking_queue_due on booking_queue (due_at, id);
create index booking_queue_booking on booking_queue (booking_id);

-- Has the worker look at a booking. What the worker changes while it looks is its own doing: it looks at all of it anyway.
create function hse_queue_booking(booking uuid) returns void
    language sql security definer set search_path = public, pg_temp as $$
    insert into booking_queue (booking_id)
    select booking where hse_setting('booking_in_hand') is distinct from booking::text
$$;
revoke execute on function hse_queue_booking(uuid) from public;

-- Tells open calendars, too: whose, where, which area, which booking.
create function queue_changed_booking() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
declare
    known bookings;
begin
    known := case when tg_op = 'DELETE' then old else new end;
    perform hse_queue_booking(known.id);
    perform pg_notify('hse_bookings', concat_ws(' ', known.organization_id, known.establishment_id, known.area_id, known.id));
    if tg_op = 'UPDATE' and new.area_id <> old.area_id then
        perform pg_notify('hse_bookings', concat_ws(' ', old.organization_id, old.establishment_id, old.area_id, old.id));
    end if;
    return null;
end
$$;
create trigger bookings_queue after insert or update or delete on bookings
    for each row execute function queue_changed_booking();

create function queue_bookings_of_settings() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
begin
    perform hse_queue_booking(b.id) from bookings b
      where b.establishment_id = new.establishment_id and b.status in ('pending', 'confirmed', 'in-progress');
    return null;
end
$$;
create trigger booking_settings_queue after update on booking_settings
    for each row execute function queue_bookings_of_settings();

-- --- calendars ---

-- The link of an area's calendar: who has it reads when the area is taken, and nothing of whom.
create table booking_calendars (
    area_id           uuid primary key,
    organization_id   uuid not null,
    establishment_id  uuid not null,
    token_hash        bytea not null check (octet_length(token_hash) = 32),
    created_by        uuid not null,
    created_at        timestamptz not null default now(),
    constraint booking_calendars_area_is_of_the_establishment foreign key (area_id, establishment_id)
        references areas (id, establishment_id) on delete cascade
);

-- Of one area, for who holds its link: the caller compares the hash in constant time, and shows nothing when it is another.
create function hse_open_booking_calendar(
    area uuid,
    out token_hash bytea,
    out area_name text,
    out establishment_name text,
    out timezone text
) returns setof record language sql stable security definer set search_path = public, pg_temp as $$
    select c.token_hash, a.name, e.name, e.timezone
      from booking_calendars c
      join areas a on a.id = c.area_id
      join establishments e on e.id = c.establishment_id
      join organizations o on o.id = c.organization_id
      left join partner_companies p on p.id = o.partner_company_id
     where c.area_id = area and o.is_active and p.is_active is not false
$$;

create function hse_booking_calendar_stays(area uuid, token bytea, since timestamptz, stays_max integer)
    returns table (booking_id uuid, check_in timestamptz, check_out timestamptz, status text, updated_at timestamptz, version bigint)
    language sql stable security definer set search_path = public, pg_temp as $$
    select b.id, b.check_in, b.check_out, b.status, b.updated_at, b.version
      from bookings b
     where b.area_id = area and b.status <> 'cancelled' and b.check_out >= since
       and exists (select from booking_calendars c where c.area_id = area and c.token_hash = token)
     order by b.check_in limit stays_max
$$;
revoke execute on function
    hse_open_booking_calendar(uuid), hse_booking_calendar_stays(uuid, bytea, timestamptz, integer) from public;
grant execute on function
    hse_open_booking_calendar(uuid), hse_booking_calendar_stays(uuid, bytea, timestamptz, integer) to hse_api;

-- --- the second lock ---

alter table bookings enable row level security;
create policy reach on bookings to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or organization_id = any((select hse_setting_ids('organization_ids'))::uuid[])
    or establishment_id = any((select hse_setting_ids('establishment_ids'))::uuid[])
);

alter table guests enable row level security;
create policy reach on guests to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or organization_id = any((select hse_setting_ids('organization_ids'))::uuid[])
    or establishment_id = any((select hse_setting_ids('establishment_ids'))::uuid[])
    or exists (select from bookings b where b.guest_id = guests.id)
);

alter table guest_companions enable row level security;
create policy reach on guest_companions to hse_api using (
    exists (select from guests g where g.id = guest_id) and exists (select from guests g where g.id = companion_id)
);

alter table booking_settings enable row level security;
create policy reach on booking_settings to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or organization_id = any((select hse_setting_ids('organization_ids'))::uuid[])
    or establishment_id = any((select hse_setting_ids('establishment_ids'))::uuid[])
);

alter table booking_history enable row level security;
create policy reach on booking_history to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or organization_id = any((select hse_setting_ids('organization_ids'))::uuid[])
    or establishment_id = any((select hse_setting_ids('establishment_ids'))::uuid[])
);

alter table booking_calendars enable row level security;
create policy reach on booking_calendars to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or organization_id = any((select hse_setting_ids('organization_ids'))::uuid[])
    or establishment_id = any((select hse_setting_ids('establishment_ids'))::uuid[])
);

grant select on booking_history to hse_api;
grant select on booking_settings to hse_api;
grant update (
    check_in_margin_minutes, check_out_margin_minutes, no_show_grace_minutes, code_deadline_minutes, code_lead_hours,
    check_out_reminder_minutes, max_code_usages
) on booking_settings to hse_api;
grant select, insert, update on guests to hse_api;
grant select, insert, update, delete on guest_companions, bookings, booking_calendars to hse_api;
