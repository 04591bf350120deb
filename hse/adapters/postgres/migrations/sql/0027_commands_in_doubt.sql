-- A worker that dies while it hands a command over leaves a doubt. A node that then says that the device is not connected speaks of
-- the second time, and not of the first.
alter table device_commands
    drop constraint device_commands_dispatch_check,
    add constraint device_commands_dispatch_check check (dispatch in ('waiting', 'under_way', 'in_doubt', 'over')) not valid;
alter table device_commands validate constraint device_commands_dispatch_check;
comment on column device_commands.dispatch is
    'waiting: surely not at the device; under_way: handed to a node, and with state queued nobody knows yet whether it took it; in_doubt: so, and handed over once more';
