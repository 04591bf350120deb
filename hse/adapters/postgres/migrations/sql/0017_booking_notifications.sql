-- What guests are told of their bookings: queued by the worker's look at a booking, sent by the worker, kept without the codes.

alter table booking_settings add column notification_channels text[] not null default '{email}'
    constraint booking_settings_notification_channels_are_known check (
        notification_channels <@ array['email', 'sms', 'push'] and array_position(notification_channels, null) is null
    );
comment on column booking_settings.notification_channels is 'on which guests are told things; on none: not at all';
grant update (notification_channels) on booking_settings to hse_api;

-- No foreign key to the booking: that something was sent stays known when it is deleted. Of a type on a channel there is one for each
-- thing that it is `about`. What was said is sealed, and has marks where codes were.
create table booking_notifications (
    id                uuid primary key default gen_random_uuid(),
    number            bigint generated always as identity unique,
    organization_id   uuid not null,
    establishment_id  uuid not null,
    booking_id        uuid not null,
    guest_id          uuid not null,
    type              text not null check (
        type in ('booking_created', 'booking_confirmed', 'check_in_instructions', 'booking_modified', 'booking_cancelled',
                 'check_out_reminder')
    ),
    channel           text not null check (channel in ('email', 'sms', 'push')),
    about             text not null default '',
    terms             text not null,
    status            text not null default 'pending' check (status in ('pending', 'sent', 'failed')),
    reason            text check (char_length(reason) <= 300),
    is_withdrawn      boolean not null default false,
    may_have_left     boolean not null default false,
    language          text check (language in ('es', 'en')),
    recipient         text,
    sealed_content    bytea,
    num_attempts      integer not null default 0,
    num_tries         integer not null default 0,
    next_attempt_at   timestamptz not null,
    sent_at           timestamptz,
    version           bigint not null default 1,
    created_at        timestamptz not null,
    updated_at        timestamptz not null default now(),
    constraint booking_notifications_once unique (booking_id, type, channel, about),
    constraint booking_notifications_sent_have_a_time check ((status = 'sent') = (sent_at is not null)),
    constraint booking_notifications_withdrawn_are_over check (not is_withdrawn or status = 'failed')
);
comment on column booking_notifications.about is 'which change, which codes; empty where there is one of the type';
comment on column booking_notifications.terms is 'a fingerprint of the stay that it tells of';
comment on column booking_notifications.is_withdrawn is 'taken back before anything was to be said; reason says why';
comment on column booking_notifications.may_have_left is 'it was sent, or nobody knows';
comment on column booking_notifications.num_tries is 'those of num_attempts since it was queued, or asked for again';

create index booking_notifications_booking on booking_notifications (booking_id, number);
create index booking_notifications_guest on booking_notifications (guest_id);
create index booking_notifications_due on booking_notifications (channel, next_attempt_at, number) where status = 'pending';

create trigger booking_notifications_touch before update on booking_notifications
    for each row execute function touch_version();

create function empty_notifications_of_erased_guest() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
begin
    update booking_notifications
       set recipient = null, sealed_content = null,
           is_withdrawn = is_withdrawn or status = 'pending',
           reason = case when status = 'pending' then 'the guest was erased' when status = 'failed' then reason end,
           status = case when status = 'pending' then 'failed' else status end
     where guest_id = new.id;
    return null;
end
$$;
create trigger guests_erased_notifications after update of erased_at on guests
    for each row when (new.erased_at is not null and old.erased_at is null)
    execute function empty_notifications_of_erased_guest();

-- --- the second lock ---

alter table booking_notifications enable row level security;
create policy reach on booking_notifications to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or organization_id = any((select hse_setting_ids('organization_ids'))::uuid[])
    or establishment_id = any((select hse_setting_ids('establishment_ids'))::uuid[])
);
-- The worker owns them.
grant select on booking_notifications to hse_api;
