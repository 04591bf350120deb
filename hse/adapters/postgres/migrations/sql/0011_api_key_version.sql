-- An API key can be changed, so it has a version like everything that can. Its uses, which are counted every few seconds, are no change.
alter table api_keys
    add column version bigint not null default 1,
    add column updated_at timestamptz not null default now();

create trigger api_keys_touch before update of name, actions, requests_per_minute, expires_at, revoked_at on api_keys
    for each row execute function touch_version();
