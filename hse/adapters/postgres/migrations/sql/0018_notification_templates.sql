-- Templates of organisations in place of the built-in ones, and notifications that are sent again because somebody says so.

insert into actions (name, resource, action, category, description, exclusive_to, hierarchy_max) values
    ('resend_booking_notification', 'booking_notification', 'resend', 'booking_management', 'Have notifications that failed sent again', null, 32767),
    ('read_notification_template', 'notification_template', 'read', 'booking_management', 'See in which words guests are told things', null, 32767),
    ('manage_notification_template', 'notification_template', 'manage', 'booking_management', 'Write, change and delete the words in which guests are told things', null, 32767);

insert into permissions (role_id, action_name)
select roles.id, actions.name
  from roles, actions
 where roles.type = 'system' and roles.name in ('root', 'partner', 'admin')
   and actions.resource in ('booking_notification', 'notification_template');

create table notification_templates (
    id               uuid primary key default gen_random_uuid(),
    organization_id  uuid not null references organizations on delete cascade,
    type             text not null check (
        type in ('booking_created', 'booking_confirmed', 'check_in_instructions', 'booking_modified', 'booking_cancelled',
                 'check_out_reminder')
    ),
    channel          text not null check (channel in ('email', 'sms', 'push')),
    language         text not null check (language in ('es', 'en')),
    subject          text not null check (char_length(subject) between 1 and 150),
    message          text not null check (char_length(message) between 1 and 5000),
    version          bigint not null default 1,
    created_at       timestamptz not null default now(),
    updated_at       timestamptz not null default now(),
    constraint notification_templates_type unique (organization_id, type, channel, language)
);
create trigger notification_templates_touch before update on notification_templates
    for each row execute function touch_version();

alter table booking_notifications add column template_id uuid, add column template_version bigint;
comment on column booking_notifications.template_id is 'in whose words it was said; null: in the built-in ones';

-- Who has one sent again does not know whether it still has something to say: the next look at its booking does.
create function queue_booking_of_resent_notification() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
begin
    perform hse_queue_booking(new.booking_id);
    return null;
end
$$;
create trigger booking_notifications_queue after update of status on booking_notifications for each row
    when (old.status = 'failed' and new.status = 'pending') execute function queue_booking_of_resent_notification();

-- What a mail server answered may name the guest.
create or replace function empty_notifications_of_erased_guest() returns trigger
    language plpgsql security definer set search_path = public, pg_temp as $$
begin
    update booking_notifications
       set recipient = null, sealed_content = null,
           is_withdrawn = is_withdrawn or status = 'pending',
           reason = case when status <> 'sent' then 'the guest was erased' end,
           status = case when status = 'pending' then 'failed' else status end
     where guest_id = new.id;
    return null;
end
$$;

-- --- the second lock ---

alter table notification_templates enable row level security;
create policy reach on notification_templates to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or organization_id = any((select hse_setting_ids('organization_ids'))::uuid[])
);
grant select, delete on notification_templates to hse_api;
grant insert (organization_id, type, channel, language, subject, message), update (subject, message)
    on notification_templates to hse_api;
grant update (status, reason, num_tries, next_attempt_at) on booking_notifications to hse_api;
