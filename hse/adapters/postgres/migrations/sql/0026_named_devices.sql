-- Where those stood whom a command names to its gateway, by their ids: what waits for one that was moved is cancelled.

alter table device_commands add column named_places jsonb;
comment on column device_commands.named_places is 'the establishments, or null, by the ids of the devices that params name; null where they name none';
grant insert (named_places) on device_commands to hse_api;
