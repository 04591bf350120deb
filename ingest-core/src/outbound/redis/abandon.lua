-- Says of devices that were connected to a node's process which has gone that they are offline.
--
-- KEYS: `device:state:{id}`, of any devices. ARGV: the node's name as JSON | the run of it that lives, as JSON, or '' when the
-- node is gone | `ingest:node:{name}` | seconds that the states are kept.

local name, living_run, node_key, seconds = unpack(ARGV)
if living_run == '' and redis.call('EXISTS', node_key) == 1 then
  return 0
end
local num_abandoned = 0
for _, key in ipairs(KEYS) do
  local state = redis.pcall('GET', key)
  if type(state) == 'string'
    and string.find(state, ',"connectionState":{"connected":true,', 1, true)
    and string.find(state, ',"node":' .. name .. ',', 1, true)
    and (living_run == '' or not string.find(state, ',"run":' .. living_run .. ',', 1, true)) then
    state = string.gsub(state, ',"connectionState":{"connected":true,', ',"connectionState":{"connected":false,', 1)
    state = string.gsub(state, '","status":"%a+",', '","status":"offline",', 1)
    redis.call('SET', key, state, 'EX', seconds)
    num_abandoned = num_abandoned + 1
  end
end
return num_abandoned
