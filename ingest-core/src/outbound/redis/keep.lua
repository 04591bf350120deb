-- Keeps the states of devices. Each is merged with what is there, so that the order in which nodes write does not count: the
-- newest event stays, and so does the newest connection.
--
-- KEYS: `device:state:{id}`. ARGV[1]: seconds that the state of a device is kept that is not connected. Then for each key:
-- device id | time of its event in ms, or '' | the event as JSON, or null | begin of its connection in ms | the connection as
-- JSON | time of this writing in ms.
--
-- Texts are cut out and not decoded: numbers would come back from cjson with 14 digits. Within a JSON text every quote is
-- escaped, so `,"connectionState":` is found nowhere else.

local function part(json, from, to)
  local _, before = string.find(json, from, 1, true)
  local after = before and string.find(json, to, before + 1, true)
  return after and string.sub(json, before + 1, after - 1)
end

local function is_connected(connection)
  return string.find(connection, '{"connected":true,', 1, true) == 1
end

for number, key in ipairs(KEYS) do
  local first = 2 + (number - 1) * 6
  local id, event_ms, event, begin_ms, connection, now_ms = unpack(ARGV, first, first + 5)
  event_ms, begin_ms = tonumber(event_ms), tonumber(begin_ms)
  local old = redis.pcall('GET', key)
  local old_event = type(old) == 'string' and part(old, ',"lastEvent":', ',"connectionState":')
  local old_connection = type(old) == 'string' and part(old, ',"connectionState":', ',"updatedAt":')
  if old_event and old_connection then
    local old_event_ms = tonumber(string.match(old_event, '"timestamp":(%-?%d+)}$'))
    if old_event_ms and (not event_ms or old_event_ms > event_ms) then
      event = old_event
    end
    local old_begin_ms = tonumber(string.match(old_connection, '"connectedAt":(%d+)}$'))
    -- A node that says that a device is connected to it knows better than one that lost it, whatever their clocks say.
    if old_begin_ms and old_begin_ms > begin_ms and (is_connected(old_connection) or not is_connected(connection)) then
      connection = old_connection
    end
  end
  local status = 'offline'
  if is_connected(connection) then
    status = string.find(event, '{"type":"error",', 1, true) == 1 and 'error' or 'online'
  end
  local state = '{"deviceId":"' .. id .. '","status":"' .. status .. '","lastEvent":' .. event
    .. ',"connectionState":' .. connection .. ',"updatedAt":' .. now_ms .. '}'
  if status == 'offline' then
    redis.call('SET', key, state, 'EX', ARGV[1])
  else
    redis.call('SET', key, state)
  end
end
return #KEYS
