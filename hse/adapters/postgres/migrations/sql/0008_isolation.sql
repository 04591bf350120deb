-- The second lock. The api works under the role hse_api, for which every relational table has row-level security: without a scope
-- it sees nothing. A scope is set for one transaction, by functions that run with the owner's rights and look the actor up
-- themselves; so a connection that goes back to a pool carries nothing along, and the api cannot name a tenant, only a session or a key.
-- Never on device_events: row-level security and COPY do not go together.
do $$
begin
    if not exists (select from pg_roles where rolname = 'hse_api') then
        create role hse_api nologin;
    end if;
exception
    -- Roles belong to the whole server: another database's migration may have made it meanwhile.
    when duplicate_object or unique_violation then null;
    when insufficient_privilege then
        raise exception 'no right to create the role hse_api, under which the api works'
            using hint = 'let an administrator run: create role hse_api nologin';
end
$$;

create function hse_setting(name text) returns text language sql stable as $$
    select nullif(current_setting('hse.' || name, true), '')
$$;

create function hse_in_scope(scope text) returns boolean language sql stable as $$
    select coalesce(hse_setting('scope') = scope, false)
$$;

create function hse_setting_ids(name text) returns uuid[] language sql stable as $$
    select coalesce(hse_setting(name)::uuid[], '{}')
$$;

create type hse_actor as (
    user_id uuid,
    email text,
    role_id uuid,
    hierarchy smallint,
    partner_company_id uuid,
    organization_id uuid,
    has_all_establishments boolean,
    actions text[],
    -- Organisations that he reaches whole, with all that stands in them.
    organization_ids uuid[],
    -- Establishment that he is assigned to -> the actions of the role he has there; null where that is his own role.
    establishments jsonb
);

-- Whether somebody may come in at all: neither he nor his organisation nor the partner company above is disabled.
create function hse_is_admitted(admitted uuid) returns boolean
    language sql stable security definer set search_path = public, pg_temp as $$
    select exists (
        select from users u
          left join organizations o on o.id = u.organization_id
          left join partner_companies p on p.id = coalesce(u.partner_company_id, o.partner_company_id)
         where u.id = admitted and u.is_active and o.is_active is not false and p.is_active is not false
    )
$$;

-- Looks an actor up and sets the scope of this transaction to what he reaches. No row: there is no such actor, or not any more.
create function hse_enter_user(actor uuid) returns setof hse_actor
    language plpgsql security definer set search_path = public, pg_temp as $$
declare
    found_user users;
    entered hse_actor;
    is_root boolean;
begin
    select * into found_user from users where users.id = actor and hse_is_admitted(users.id);
    if not found then
        return;
    end if;

    entered.user_id := found_user.id;
    entered.email := found_user.email;
    entered.role_id := found_user.role_id;
    entered.partner_company_id := found_user.partner_company_id;
    entered.organization_id := found_user.organization_id;
    select roles.hierarchy into entered.hierarchy from roles where roles.id = found_user.role_id;
    entered.has_all_establishments := found_user.has_all_establishments and entered.hierarchy = 3;
    entered.actions := array(select p.action_name from permissions p where p.role_id = found_user.role_id);
    is_root := entered.hierarchy = 1 and 'view_all_organizations' = any(entered.actions);
    entered.organization_ids := case
        when entered.hierarchy = 2 then array(
            select o.id from organizations o where o.partner_company_id = found_user.partner_company_id
        )
        when entered.has_all_establishments then array[found_user.organization_id]
        else '{}'
    end;
    entered.establishments := coalesce((
        select jsonb_object_agg(
                   assigned.establishment_id,
                   case when assigned.role_id is not null then (
                       select coalesce(jsonb_agg(p.action_name), '[]') from permissions p where p.role_id = assigned.role_id
                   ) end
               )
          from user_establishments assigned
          join establishments e on e.id = assigned.establishment_id and e.organization_id = found_user.organization_id
         where assigned.user_id = found_user.id
    ), '{}');

    perform set_config('hse.scope', 'actor', true),
            set_config('hse.user_id', entered.user_id::text, true),
            set_config('hse.is_root', is_root::text, true),
            set_config('hse.partner_company_id', coalesce(entered.partner_company_id::text, ''), true),
            set_config('hse.organization_id', coalesce(entered.organization_id::text, ''), true),
            set_config('hse.organization_ids', entered.organization_ids::text, true),
            set_config('hse.establishment_ids', array(select jsonb_object_keys(entered.establishments))::text, true);
    return next entered;
end
$$;

create function hse_enter_session(session uuid) returns setof hse_actor
    language sql security definer set search_path = public, pg_temp as $$
    select entered.*
      from sessions, hse_enter_user(sessions.user_id) as entered
     where sessions.id = session and sessions.revoked_at is null and sessions.expires_at > now()
$$;

-- The caller compares the secret's hash in constant time, and raises when it is another.
create function hse_enter_api_key(
    key_prefix text,
    out api_key_id uuid,
    out secret_hash bytea,
    out key_actions text[],
    out requests_per_minute integer,
    out entered hse_actor
) returns setof record language sql security definer set search_path = public, pg_temp as $$
    select api_keys.id, api_keys.secret_hash, api_keys.actions, api_keys.requests_per_minute, entered
      from api_keys, hse_enter_user(api_keys.user_id) as entered
     where api_keys.prefix = key_prefix
       and api_keys.revoked_at is null
       and (api_keys.expires_at is null or api_keys.expires_at > now())
$$;

-- An establishment that is about to be made comes into reach, so that its maker can read it back. One that exists does not.
create function hse_expect_establishment(expected uuid) returns void
    language sql security definer set search_path = public, pg_temp as $$
    select set_config('hse.establishment_ids', array_append(hse_setting_ids('establishment_ids'), expected)::text, true)
     where hse_in_scope('actor') and not exists (select from establishments where id = expected)
$$;

-- Adds to the counts of keys what one process has counted, and writes down each address that a key is used from for the first time.
-- `uses`: [{"id", "uses", "last_used_at", "addresses"}].
create function hse_note_api_key_uses(uses jsonb) returns void
    language sql security definer set search_path = public, pg_temp as $$
    with used as (
        select * from jsonb_to_recordset(uses) as u (id uuid, uses bigint, last_used_at timestamptz, addresses text[])
    ), counted as (
        update api_keys
           set use_count = use_count + used.uses, last_used_at = greatest(api_keys.last_used_at, used.last_used_at)
          from used
         where api_keys.id = used.id
    )
    insert into audit_entries
        (actor_kind, actor_id, api_key_id, address, action, entity_type, entity_id, partner_company_id, organization_id)
    select 'api_key', k.user_id, k.id, used_from::inet, 'api_key.first_use', 'api_key', k.id::text, u.partner_company_id,
           u.organization_id
      from used
      join api_keys k on k.id = used.id
      join users u on u.id = k.user_id
      cross join unnest(used.addresses) as used_from
     where not exists (
           select from audit_entries e
            where e.entity_type = 'api_key' and e.entity_id = k.id::text and e.action = 'api_key.first_use'
              and e.address = used_from::inet
       )
$$;

-- The revision of the schema, for an api that wants to know whether it fits.
create function hse_schema_version() returns text
    language plpgsql security definer set search_path = public, pg_temp as $$
begin
    return (select version_num from alembic_version);
end
$$;

-- The scope of signing in: nobody has said yet who he is. It opens what proves that, and nothing of any tenant.
create function hse_enter_authentication() returns void
    language sql security definer set search_path = public, pg_temp as $$
    select set_config('hse.scope', 'authentication', true), set_config('hse.user_id', '', true)
$$;

-- What its token opens of an invitation: the holder has no account yet, and no scope but that of signing in.
create type hse_invitation as (
    id uuid,
    email text,
    first_name text,
    last_name text,
    role_id uuid,
    role_name text,
    partner_company_id uuid,
    organization_id uuid,
    tenant_name text,
    establishment_ids uuid[],
    has_all_establishments boolean,
    invited_by_name text,
    expires_at timestamptz,
    -- The role is gone, the company or organisation is disabled, or who invited might not do it any more.
    is_void boolean
);

-- Locked until the transaction ends: of several who answer at once one finds it.
create function hse_open_invitation(token bytea) returns setof hse_invitation
    language plpgsql security definer set search_path = public, pg_temp as $$
declare
    found_invitation invitations;
    opened hse_invitation;
    inviter users;
    role_hierarchy smallint;
    tenant_is_active boolean;
begin
    select * into found_invitation from invitations i
     where i.token_hash = token and i.status = 'pending' and i.expires_at > now()
       for update;
    if not found then
        return;
    end if;
    opened.id := found_invitation.id;
    opened.email := found_invitation.email;
    opened.first_name := found_invitation.first_name;
    opened.last_name := found_invitation.last_name;
    opened.role_id := found_invitation.role_id;
    opened.partner_company_id := found_invitation.partner_company_id;
    opened.organization_id := found_invitation.organization_id;
    opened.has_all_establishments := found_invitation.has_all_establishments;
    opened.expires_at := found_invitation.expires_at;
    opened.establishment_ids := array(
        select e.id from establishments e
         where e.id = any(found_invitation.establishment_ids) and e.organization_id = found_invitation.organization_id
    );
    select r.name, r.hierarchy into opened.role_name, role_hierarchy from roles r where r.id = found_invitation.role_id;
    select coalesce(o.name, p.name), coalesce(o.is_active, true) and coalesce(p.is_active, true)
      into opened.tenant_name, tenant_is_active
      from (select 1) as once
      left join organizations o on o.id = found_invitation.organization_id
      left join partner_companies p on p.id in (found_invitation.partner_company_id, o.partner_company_id);
    select * into inviter from users u where u.id = found_invitation.invited_by;
    opened.invited_by_name := inviter.first_name || ' ' || inviter.last_name;
    opened.is_void := role_hierarchy is null or not tenant_is_active or (
        found_invitation.invited_by is not null and not coalesce((
            select inviter.is_active and r.hierarchy <= least(role_hierarchy, 3) from roles r where r.id = inviter.role_id
        ), false)
    );
    return next opened;
end
$$;

revoke execute on function hse_enter_user(uuid) from public;

-- --- what each scope opens ---

create function hse_reaches_organization(organization uuid) returns boolean language sql stable as $$
    select hse_setting('is_root') = 'true' or organization = any(hse_setting_ids('organization_ids'))
        or organization = hse_setting('organization_id')::uuid
$$;

alter table partner_companies enable row level security;
create policy reach on partner_companies to hse_api
    using ((select hse_setting('is_root')) = 'true' or id = (select hse_setting('partner_company_id')::uuid));

alter table organizations enable row level security;
create policy reach on organizations to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or partner_company_id = (select hse_setting('partner_company_id')::uuid)
    or id = (select hse_setting('organization_id')::uuid)
);

alter table establishments enable row level security;
create policy reach on establishments to hse_api
    using (
        (select hse_setting('is_root')) = 'true'
        or organization_id = any((select hse_setting_ids('organization_ids'))::uuid[])
        or id = any((select hse_setting_ids('establishment_ids'))::uuid[])
    )
    with check (hse_reaches_organization(organization_id));

alter table areas enable row level security;
create policy reach on areas to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or organization_id = any((select hse_setting_ids('organization_ids'))::uuid[])
    or establishment_id = any((select hse_setting_ids('establishment_ids'))::uuid[])
);

alter table devices enable row level security;
create policy reach on devices to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or organization_id = any((select hse_setting_ids('organization_ids'))::uuid[])
    or establishment_id = any((select hse_setting_ids('establishment_ids'))::uuid[])
);

alter table roles enable row level security;
create policy see on roles for select to hse_api using (
    (partner_company_id is null and organization_id is null and (select hse_setting('scope')) is not null)
    or (select hse_setting('is_root')) = 'true'
    or partner_company_id = (select hse_setting('partner_company_id')::uuid)
    or hse_reaches_organization(organization_id)
);
create policy change on roles to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or (type = 'custom' and (
        partner_company_id = (select hse_setting('partner_company_id')::uuid) or hse_reaches_organization(organization_id)
    ))
);

alter table permissions enable row level security;
create policy see on permissions for select to hse_api using (exists (select from roles r where r.id = role_id));
create policy change on permissions to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or exists (select from roles r where r.id = role_id and r.type = 'custom' and (
        r.partner_company_id = (select hse_setting('partner_company_id')::uuid) or hse_reaches_organization(r.organization_id)
    ))
);

alter table users enable row level security;
create policy reach on users to hse_api using (
    id = (select hse_setting('user_id')::uuid)
    or partner_company_id = (select hse_setting('partner_company_id')::uuid)
    or hse_reaches_organization(organization_id)
    or (select hse_setting('is_root')) = 'true'
);
create policy authentication on users to hse_api using ((select hse_in_scope('authentication')));

alter table user_establishments enable row level security;
create policy reach on user_establishments to hse_api using (exists (select from users u where u.id = user_id));

alter table credentials enable row level security;
create policy own on credentials to hse_api using (user_id = (select hse_setting('user_id')::uuid));
create policy authentication on credentials to hse_api using ((select hse_in_scope('authentication')));

alter table recovery_codes enable row level security;
create policy own on recovery_codes to hse_api using (user_id = (select hse_setting('user_id')::uuid));
create policy authentication on recovery_codes to hse_api using ((select hse_in_scope('authentication')));

alter table sessions enable row level security;
create policy reach on sessions to hse_api using (exists (select from users u where u.id = user_id));

alter table refresh_tokens enable row level security;
create policy reach on refresh_tokens to hse_api using (exists (select from sessions s where s.id = session_id));

alter table password_resets enable row level security;
create policy authentication on password_resets to hse_api using ((select hse_in_scope('authentication')));

alter table api_keys enable row level security;
create policy reach on api_keys to hse_api using (exists (select from users u where u.id = user_id));

alter table invitations enable row level security;
create policy reach on invitations to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or partner_company_id = (select hse_setting('partner_company_id')::uuid)
    or hse_reaches_organization(organization_id)
);
create policy authentication on invitations to hse_api using ((select hse_in_scope('authentication')));

alter table audit_entries enable row level security;
create policy add on audit_entries for insert to hse_api with check ((select hse_setting('scope')) is not null);
create policy see on audit_entries for select to hse_api using (
    (select hse_setting('is_root')) = 'true'
    or organization_id = any((select hse_setting_ids('organization_ids'))::uuid[])
    or establishment_id = any((select hse_setting_ids('establishment_ids'))::uuid[])
    or (establishment_id is null and (
        partner_company_id = (select hse_setting('partner_company_id')::uuid) or hse_reaches_organization(organization_id)
    ))
);

alter table outgoing_mail enable row level security;
create policy add on outgoing_mail for insert to hse_api with check ((select hse_setting('scope')) is not null);

alter table idempotency_keys enable row level security;
create policy own on idempotency_keys to hse_api using (principal_id = (select hse_setting('user_id')::uuid));

-- The core reads who may connect, of every tenant; its column grants (0004) stay what they are.
do $$
begin
    if exists (select from pg_roles where rolname = 'hse_ingest') then
        create policy core on devices for select to hse_ingest using (true);
        create policy core on organizations for select to hse_ingest using (true);
    end if;
end
$$;

-- Who looks an actor up learns what he reaches, and the hash of a key: for the api alone.
revoke execute on function
    hse_enter_session(uuid), hse_enter_api_key(text), hse_enter_authentication(), hse_expect_establishment(uuid),
    hse_is_admitted(uuid), hse_note_api_key_uses(jsonb), hse_open_invitation(bytea), hse_schema_version() from public;
grant execute on function
    hse_enter_session(uuid), hse_enter_api_key(text), hse_enter_authentication(), hse_expect_establishment(uuid),
    hse_is_admitted(uuid), hse_note_api_key_uses(jsonb), hse_open_invitation(bytea), hse_schema_version() to hse_api;

grant usage on schema public to hse_api;
grant select on actions, audit_entries to hse_api;
grant insert on audit_entries, outgoing_mail to hse_api;
grant select, insert, update, delete on
    partner_companies, organizations, establishments, areas, devices, roles, permissions, users, user_establishments, credentials,
    recovery_codes, sessions, refresh_tokens, password_resets, api_keys, invitations, idempotency_keys
    to hse_api;
