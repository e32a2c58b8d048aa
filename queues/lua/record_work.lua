-- Adds what a piece of work changed to what all processes know, in one step.
--
-- KEYS[1] metrics (hash: series -> total)       KEYS[2] events (list, newest first)
-- KEYS[3] organisations (hash: <name>/<count>)  KEYS[4] organisations by last use (sorted set)
-- ARGV[1] metrics to add, how many              then so many (series, amount)
-- then how many counts of organisations         then so many (organisation, count, amount)
-- then how many events                          then so many texts, oldest first
-- then how many events are kept, then how many organisations are, then now in unix seconds

local at = 1
local function take() at = at + 1; return ARGV[at - 1] end

for _ = 1, tonumber(take()) do
  local series = take()
  redis.call("HINCRBYFLOAT", KEYS[1], series, take())
end

local touched = {}
for _ = 1, tonumber(take()) do
  local name = take()
  touched[name] = true
  local count = take()
  redis.call("HINCRBY", KEYS[3], name .. "/" .. count, take())
end

for _ = 1, tonumber(take()) do redis.call("LPUSH", KEYS[2], take()) end
redis.call("LTRIM", KEYS[2], 0, tonumber(take()) - 1)

local most, now = tonumber(take()), take()
for name in pairs(touched) do redis.call("ZADD", KEYS[4], now, name) end
-- Whoever was idle longest is forgotten first, so that Redis holds a bounded number of them.
while redis.call("ZCARD", KEYS[4]) > most do
  local name = redis.call("ZPOPMIN", KEYS[4])[1]
  local fields = {}
  for _, count in ipairs({"placed", "bytes", "completed", "failed", "resets"}) do
    table.insert(fields, name .. "/" .. count)
  end
  redis.call("HDEL", KEYS[3], unpack(fields))
end
return redis.status_reply("OK")
