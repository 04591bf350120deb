-- Who owns what, and where it stands: partner companies, their organisations, the establishments of these, and the areas of an
-- establishment. A device gets a place among them.

-- A version counts the changes of a row: the ETag of what people configure.
create function touch_version() returns trigger language plpgsql as $$
begin
    new.updated_at := now();
    new.version := old.version + 1;
    return new;
end
$$;

create table partner_companies (
    id             uuid primary key default gen_random_uuid(),
    name           text not null unique check (char_length(name) between 1 and 200),
    contact_email  text check (char_length(contact_email) <= 254),
    contact_phone  text check (char_length(contact_phone) <= 50),
    address        text check (char_length(address) <= 500),
    is_active      boolean not null default true,
    version        bigint not null default 1,
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now()
);

create trigger partner_companies_touch before update on partner_companies
    for each row execute function touch_version();

-- Without a partner company the operator looks after the organisation itself. A name is one partner's matter: that another
-- partner has an organisation of the same name must not show.
alter table organizations
    add column partner_company_id uuid references partner_companies,
    add column industry text check (char_length(industry) <= 100),
    add column contact_email text check (char_length(contact_email) <= 254),
    add column contact_phone text check (char_length(contact_phone) <= 50),
    add column address text check (char_length(address) <= 500),
    add column is_active boolean not null default true,
    add column version bigint not null default 1,
    drop constraint organizations_name_key,
    add constraint organizations_name_of_partner unique nulls not distinct (partner_company_id, name);

drop trigger organizations_touch on organizations;
create trigger organizations_touch before update on organizations
    for each row execute function touch_version();

create index organizations_partner_company on organizations (partner_company_id);

create table establishments (
    id               uuid primary key default gen_random_uuid(),
    organization_id  uuid not null references organizations,
    name             text not null check (char_length(name) between 1 and 200),
    address          text check (char_length(address) <= 500),
    latitude         double precision check (latitude between -90 and 90),
    longitude        double precision check (longitude between -180 and 180),
    timezone         text not null check (char_length(timezone) between 1 and 64),
    is_active        boolean not null default true,
    metadata         jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    version          bigint not null default 1,
    created_at       timestamptz not null default now(),
    updated_at       timestamptz not null default now(),
    constraint establishments_name_of_organization unique (organization_id, name),
    constraint establishments_location_is_whole check ((latitude is null) = (longitude is null)),
    unique (id, organization_id)
);
comment on column establishments.timezone is 'IANA name; local days and months are built with it when they are read';

create trigger establishments_touch before update on establishments
    for each row execute function touch_version();

-- The foreign key keeps a tree within its establishment; that it has no cycle is seen to under the establishment's lock.
create table areas (
    id                uuid primary key default gen_random_uuid(),
    organization_id   uuid not null,
    establishment_id  uuid not null,
    parent_area_id    uuid,
    name              text not null check (char_length(name) between 1 and 200),
    type              text not null check (char_length(type) between 1 and 50),
    floor             integer,
    metadata          jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    version           bigint not null default 1,
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now(),
    unique (id, establishment_id),
    constraint areas_establishment_is_of_the_organization foreign key (establishment_id, organization_id)
        references establishments (id, organization_id),
    constraint areas_parent_is_of_the_establishment foreign key (parent_area_id, establishment_id)
        references areas (id, establishment_id),
    constraint areas_name_in_parent unique nulls not distinct (establishment_id, parent_area_id, name),
    constraint areas_not_in_itself check (parent_area_id <> id)
);

create index areas_parent on areas (parent_area_id) where parent_area_id is not null;

create trigger areas_touch before update on areas
    for each row execute function touch_version();

-- A device without an area belongs to the establishment as a whole; without an establishment it is registered and not placed yet.
alter table devices
    add column establishment_id uuid,
    add column area_id uuid,
    add column device_type text not null default 'sensor' check (char_length(device_type) between 1 and 50),
    add column manufacturer text check (char_length(manufacturer) <= 200),
    add column model text check (char_length(model) <= 200),
    add column serial_number text check (char_length(serial_number) between 1 and 200),
    add column mac_address macaddr,
    add column ip_address inet,
    add column protocol text not null default 'hdp' check (char_length(protocol) between 1 and 50),
    add column status text not null default 'offline' check (status in ('online', 'offline', 'error')),
    add column metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    add column version bigint not null default 1,
    add constraint devices_establishment_is_of_the_organization foreign key (establishment_id, organization_id)
        references establishments (id, organization_id),
    add constraint devices_area_is_of_the_establishment foreign key (area_id, establishment_id)
        references areas (id, establishment_id),
    add constraint devices_area_has_establishment check (area_id is null or establishment_id is not null);

drop trigger devices_touch on devices;
create trigger devices_touch before update on devices
    for each row execute function touch_version();

create unique index devices_serial_number on devices (organization_id, serial_number) where serial_number is not null;
create index devices_establishment on devices (establishment_id) where establishment_id is not null;
create index devices_area on devices (area_id) where area_id is not null;
