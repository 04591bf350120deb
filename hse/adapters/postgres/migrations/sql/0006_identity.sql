-- Who people are, and what they may do. Roles hold actions; a user has a role, and may have another one at an establishment.

create table actions (
    name            text primary key,
    resource        text not null,
    action          text not null,
    category        text not null,
    description     text not null,
    exclusive_to    smallint,
    hierarchy_max   smallint not null default 32767
);
comment on column actions.exclusive_to is 'hierarchy of the only system role, beside root, that may hold it; null: any may';
comment on column actions.hierarchy_max is 'roles further down may not hold it';

-- Hierarchy: 1 root, 2 partner, 3 admin, 4 user; custom roles from 5 on. A custom role belongs to whom its binding names.
create table roles (
    id                  uuid primary key default gen_random_uuid(),
    name                text not null check (char_length(name) between 1 and 100),
    description         text not null default '' check (char_length(description) <= 500),
    type                text not null check (type in ('system', 'custom')),
    hierarchy           smallint not null check (hierarchy >= 1),
    partner_company_id  uuid references partner_companies,
    organization_id     uuid references organizations,
    establishment_id    uuid,
    created_by          uuid,
    version             bigint not null default 1,
    created_at          timestamptz not null default now(),
    updated_at          timestamptz not null default now(),
    constraint roles_name_in_binding unique nulls not distinct (partner_company_id, organization_id, establishment_id, name),
    constraint roles_hierarchy_of_type check ((type = 'system') = (hierarchy <= 4)),
    constraint roles_system_is_unbound check (
        type = 'custom' or (partner_company_id is null and organization_id is null and establishment_id is null)
    ),
    constraint roles_binding_is_single check (partner_company_id is null or organization_id is null),
    constraint roles_establishment_has_organization check (establishment_id is null or organization_id is not null),
    constraint roles_establishment_is_of_the_organization foreign key (establishment_id, organization_id)
        references establishments (id, organization_id)
);
create unique index roles_system_hierarchy on roles (hierarchy) where type = 'system';
create index roles_organization on roles (organization_id) where organization_id is not null;

create trigger roles_touch before update on roles
    for each row execute function touch_version();

create table permissions (
    role_id      uuid not null references roles on delete cascade,
    action_name  text not null references actions,
    granted_by   uuid,
    granted_at   timestamptz not null default now(),
    primary key (role_id, action_name)
);

-- What a role of this hierarchy may hold at all, whoever grants it. Root may hold everything.
create function check_permission() returns trigger language plpgsql as $$
declare
    held_by smallint;
    granted actions;
begin
    select hierarchy into strict held_by from roles where id = new.role_id;
    select * into strict granted from actions where name = new.action_name;
    if held_by = 1 then
        return new;
    end if;
    if granted.exclusive_to is not null and granted.exclusive_to <> held_by then
        raise exception 'action % is exclusive to another role', new.action_name
            using errcode = 'check_violation', constraint = 'permissions_exclusive';
    end if;
    if held_by > granted.hierarchy_max then
        raise exception 'action % is not for roles of this hierarchy', new.action_name
            using errcode = 'check_violation', constraint = 'permissions_hierarchy';
    end if;
    return new;
end
$$;
create trigger permissions_check before insert or update on permissions
    for each row execute function check_permission();

create table users (
    id                      uuid primary key default gen_random_uuid(),
    email                   text not null check (char_length(email) between 3 and 254),
    first_name              text not null check (char_length(first_name) between 1 and 100),
    last_name               text not null check (char_length(last_name) between 1 and 100),
    role_id                 uuid not null references roles,
    partner_company_id      uuid references partner_companies,
    organization_id         uuid references organizations,
    has_all_establishments  boolean not null default false,
    is_active               boolean not null default true,
    email_verified          boolean not null default false,
    onboarded_at            timestamptz,
    version                 bigint not null default 1,
    created_at              timestamptz not null default now(),
    updated_at              timestamptz not null default now(),
    constraint users_belong_to_one check (partner_company_id is null or organization_id is null)
);
comment on column users.has_all_establishments is
    'the chief administrator: reaches every establishment of the organisation, those made later too';
create unique index users_email on users (lower(email));
create index users_organization on users (organization_id) where organization_id is not null;
create index users_partner_company on users (partner_company_id) where partner_company_id is not null;
create index users_role on users (role_id);

create trigger users_touch before update on users
    for each row execute function touch_version();

create table user_establishments (
    user_id           uuid not null references users on delete cascade,
    establishment_id  uuid not null references establishments on delete cascade,
    role_id           uuid references roles,
    assigned_by       uuid,
    assigned_at       timestamptz not null default now(),
    primary key (user_id, establishment_id)
);
create index user_establishments_establishment on user_establishments (establishment_id);

-- What a user proves to be him with. `totp_sealed` is encrypted with the key of the processes, not of the database.
create table credentials (
    user_id              uuid primary key references users on delete cascade,
    password_hash        text not null,
    password_changed_at  timestamptz not null default now(),
    totp_sealed          bytea,
    totp_confirmed_at    timestamptz,
    totp_last_counter    bigint
);

create table recovery_codes (
    user_id    uuid not null references users on delete cascade,
    code_hash  bytea not null check (octet_length(code_hash) = 32),
    used_at    timestamptz,
    primary key (user_id, code_hash)
);

create table sessions (
    id              uuid primary key,
    user_id         uuid not null references users on delete cascade,
    address         inet,
    user_agent      text check (char_length(user_agent) <= 300),
    created_at      timestamptz not null default now(),
    last_used_at    timestamptz not null default now(),
    expires_at      timestamptz not null,
    revoked_at      timestamptz,
    revoked_reason  text
);
create index sessions_user on sessions (user_id);

-- A session's refresh tokens, one after another: each is good for one use. `successor_hash` answers a use that is repeated because
-- its answer was lost.
create table refresh_tokens (
    token_hash      bytea primary key check (octet_length(token_hash) = 32),
    session_id      uuid not null references sessions on delete cascade,
    issued_at       timestamptz not null default now(),
    used_at         timestamptz,
    successor_hash  bytea
);
create index refresh_tokens_session on refresh_tokens (session_id);

-- One-time links: a new password, or the proof of an address.
create table password_resets (
    token_hash  bytea primary key check (octet_length(token_hash) = 32),
    user_id     uuid not null references users on delete cascade,
    created_at  timestamptz not null default now(),
    expires_at  timestamptz not null,
    used_at     timestamptz
);

create table api_keys (
    id                  uuid primary key default gen_random_uuid(),
    user_id             uuid not null references users on delete cascade,
    name                text not null check (char_length(name) between 1 and 100),
    prefix              text not null unique,
    secret_hash         bytea not null check (octet_length(secret_hash) = 32),
    actions             text[] not null,
    requests_per_minute integer not null check (requests_per_minute between 1 and 100000),
    expires_at          timestamptz,
    revoked_at          timestamptz,
    last_used_at        timestamptz,
    use_count           bigint not null default 0,
    created_at          timestamptz not null default now()
);
create index api_keys_user on api_keys (user_id);

-- Without a role, as that was deleted meanwhile, an invitation can be accepted no more.
create table invitations (
    id                      uuid primary key default gen_random_uuid(),
    email                   text not null check (char_length(email) between 3 and 254),
    first_name              text not null check (char_length(first_name) between 1 and 100),
    last_name               text not null check (char_length(last_name) between 1 and 100),
    role_id                 uuid references roles on delete set null,
    partner_company_id      uuid references partner_companies on delete cascade,
    organization_id         uuid references organizations on delete cascade,
    establishment_ids       uuid[] not null default '{}',
    has_all_establishments  boolean not null default false,
    status                  text not null default 'pending' check (status in ('pending', 'accepted', 'rejected', 'revoked')),
    token_hash              bytea not null unique check (octet_length(token_hash) = 32),
    invited_by              uuid,
    sent_count              integer not null default 1,
    expires_at              timestamptz not null,
    answered_at             timestamptz,
    user_id                 uuid references users on delete set null,
    version                 bigint not null default 1,
    created_at              timestamptz not null default now(),
    updated_at              timestamptz not null default now(),
    constraint invitations_belong_to_one check (partner_company_id is null or organization_id is null)
);
create unique index invitations_pending on invitations (lower(email), partner_company_id, organization_id)
    nulls not distinct where status = 'pending';
create index invitations_organization on invitations (organization_id) where organization_id is not null;

create index invitations_role on invitations (role_id);

create trigger invitations_touch before update on invitations
    for each row execute function touch_version();

-- Who changed what, from where. Nobody changes an entry: the api's role may add and read, no more.
create table audit_entries (
    id                  bigint generated always as identity primary key,
    at                  timestamptz not null default now(),
    actor_kind          text not null check (actor_kind in ('user', 'api_key', 'anonymous', 'operator')),
    actor_id            uuid,
    api_key_id          uuid,
    address             inet,
    correlation_id      text,
    action              text not null,
    entity_type         text not null,
    entity_id           text,
    partner_company_id  uuid,
    organization_id     uuid,
    -- Where the thing stands: its entries are for those who reach the establishment.
    establishment_id    uuid,
    before              jsonb,
    after               jsonb
);
create index audit_entries_organization on audit_entries (organization_id, id desc);
create index audit_entries_partner_company on audit_entries (partner_company_id, id desc);
create index audit_entries_establishment on audit_entries (establishment_id, id desc) where establishment_id is not null;
create index audit_entries_actor on audit_entries (actor_id, id desc);
create index audit_entries_entity on audit_entries (entity_type, entity_id, id desc);

-- Letters that wait to be sent, written in the transaction that causes them. They hold one-time links, so they are encrypted with the
-- key of the processes, and emptied once sent.
create table outgoing_mail (
    id               bigint generated always as identity primary key,
    kind             text not null,
    recipient        text not null,
    sealed           bytea,
    status           text not null default 'pending' check (status in ('pending', 'sent', 'failed')),
    attempts         integer not null default 0,
    next_attempt_at  timestamptz not null default now(),
    last_error       text,
    created_at       timestamptz not null default now(),
    sent_at          timestamptz
);
create index outgoing_mail_due on outgoing_mail (next_attempt_at) where status = 'pending';

-- Answers to requests that carried an Idempotency-Key, written in the transaction of the command. Encrypted: some show a secret once.
create table idempotency_keys (
    principal_id  uuid not null,
    key           text not null check (char_length(key) between 1 and 200),
    request_hash  bytea not null,
    status        smallint,
    sealed        bytea,
    created_at    timestamptz not null default now(),
    primary key (principal_id, key)
);
create index idempotency_keys_age on idempotency_keys (created_at);
