-- Which node polls what (docs/adr/0026-who-polls-a-device.md). Polled endpoints fall into sixteen shares by their address; a node
-- holds some of them for a while, and asks for them again in time.

create table polling_nodes (
    holder  uuid primary key,
    node    text not null,
    until   timestamptz not null
);
comment on table polling_nodes is 'nodes that have something to poll; gone from here by themselves once they are silent';

create table polling_shares (
    share   smallint primary key check (share between 0 and 15),
    holder  uuid,
    until   timestamptz,
    check ((holder is null) = (until is null))
);
insert into polling_shares (share) select generate_series(0, 15);

-- Asks for shares again. `kept` are those that the node uses or wants to use: what else it has is given away, and so is, in its
-- next call, what it has beyond its fair part. It may use what is answered, up to that part, for `lease_ms` from before it asked.
create function hold_polling_shares(own uuid, node_name text, kept smallint[], lease_ms integer)
returns table (held smallint[], num_fair integer, num_nodes integer)
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    asked timestamptz;
    ends timestamptz;
begin
    -- One node after the other; what it waited is no part of its lease.
    lock table polling_shares in exclusive mode;
    asked := clock_timestamp();
    ends := asked + lease_ms * interval '1 millisecond';
    delete from polling_nodes where until < asked and holder <> own;
    insert into polling_nodes values (own, left(node_name, 200), ends)
        on conflict (holder) do update set node = excluded.node, until = excluded.until;
    select count(*), ceil(16.0 / count(*)) into num_nodes, num_fair from polling_nodes;

    update polling_shares set holder = null, until = null
        where holder = own and share <> all (kept) or holder <> own and until < asked;
    update polling_shares set until = ends where holder = own;
    update polling_shares set holder = own, until = ends where share in (
        select share from polling_shares where holder is null order by share
            limit greatest(0, num_fair - (select count(*) from polling_shares where holder = own))
    );
    select coalesce(array_agg(share order by share), '{}') into held from polling_shares where holder = own;
    return next;
end
$$;

create function leave_polling(own uuid) returns void
language sql security definer set search_path = pg_catalog, public as $$
    lock table polling_shares in exclusive mode;
    update polling_shares set holder = null, until = null where holder = own;
    delete from polling_nodes where holder = own;
$$;

revoke execute on function hold_polling_shares(uuid, text, smallint[], integer), leave_polling(uuid) from public;

do $$
begin
    if exists (select from pg_roles where rolname = 'hse_ingest') then
        grant execute on function hold_polling_shares(uuid, text, smallint[], integer), leave_polling(uuid) to hse_ingest;
    end if;
end
$$;
