-- What the maintenance remembers of its clock (hse/adapters/postgres/maintenance_clock.py).

create table maintenance_clock (
    is_only      boolean primary key default true check (is_only),
    believed_at  timestamptz check (isfinite(believed_at)),
    looked_at    timestamptz,
    doubted_for  interval not null default '0'
);

insert into maintenance_clock default values;

-- The plain form remembers when it ran last.
do $$
begin
    if event_storage() = 'partitions' then
        update maintenance_clock set believed_at = open_from from rollup_state where isfinite(open_from);
    end if;
end
$$;
