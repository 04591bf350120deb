-- What the drain keeps in the transaction of its COPY: what is stored, how far the journal is read, what the control
-- plane must act on, and what the database refused.

-- No foreign key to devices: a drain must never fail because a device was deleted while its events lay in a journal.
-- A row is rewritten with every batch of its device; room in the page keeps those updates HOT (no index is touched).
create table device_sequences (
    device_id   uuid not null,
    epoch       bigint not null,
    stored      int8multirange not null,
    updated_at  timestamptz not null default now(),
    primary key (device_id, epoch)
) with (fillfactor = 60);

create table ingest_cursor (
    journal_id  uuid primary key,
    lane        integer not null check (lane >= 0),
    generation  bigint not null,
    position    bigint not null,
    node        text,
    updated_at  timestamptz not null default now()
) with (fillfactor = 20);

-- A queue: rows live for moments, so vacuum goes by their number and not by a share of a table that is nearly empty.
create table event_outbox (
    id          bigint generated always as identity primary key,
    time        timestamptz not null,
    device_id   uuid not null,
    event_type  text not null,
    value       double precision,
    unit        text,
    metadata    jsonb,
    source      text,
    created_at  timestamptz not null default now()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

create table dead_letters (
    id               bigint generated always as identity primary key,
    device_id        uuid not null,
    epoch            bigint not null,
    seq              bigint not null,
    received_at      timestamptz not null,
    code             text not null,
    reason           text not null,
    event            bytea not null,
    status           text not null default 'pending' check (status in ('pending', 'permanent', 'discarded')),
    attempts         integer not null default 0 check (attempts >= 0),
    next_attempt_at  timestamptz,
    created_at       timestamptz not null default now(),
    updated_at       timestamptz not null default now()
);
comment on column dead_letters.device_id is
    'the connected device, whose epoch and seq these are; the event may name a child';
comment on column dead_letters.event is 'MessagePack of the event array as the device sent it';

create index dead_letters_due on dead_letters (next_attempt_at) where status = 'pending';

create trigger dead_letters_touch before update on dead_letters
    for each row execute function touch_updated_at();
