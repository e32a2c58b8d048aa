-- Gives back what died with its worker, and sets poison aside.
--
-- KEYS[1] rq:queue:<lane>  KEYS[2] rq:queue:<lane>:intermediate  KEYS[3] rq:wip:<lane>
-- KEYS[4] rq:failed:<lane>  KEYS[5] rq:scheduled:<lane>
-- KEYS[6] rescan:<lane>:popped (sorted set: id -> when it was first seen popped)
-- KEYS[7] rescan:<lane>:poison (set: jobs set aside whose manifest doesn't say so yet)
-- ARGV[1] s a heartbeat lasts  ARGV[2] s after which a pop was lost  ARGV[3] deaths of poison
-- ARGV[4] s a failed job is kept  ARGV[5] s a job waits at most  ARGV[6] now, as RQ writes a time
--
-- Returns {ids given back, ids set aside}. The server's clock alone decides, and a time that is
-- further away than any can be was written before that clock was set back: it is drawn near.

local queue, popped = KEYS[1], KEYS[6]
local time = redis.call("TIME")
local now = time[1] + time[2] / 1000000
local given_back, set_aside = {}, {}

local function draw_near(key, longest)
  for _, entry in ipairs(redis.call("ZRANGEBYSCORE", key, "(" .. now + longest, "+inf")) do
    redis.call("ZADD", key, now + longest, entry)
  end
end

-- nil also for a record that is no job's, whoever put it there.
local function field(id, name)
  local value = redis.pcall("HGET", "rq:job:" .. id, name)
  return type(value) == "string" and value or nil
end

local function give_back(id)
  local job = "rq:job:" .. id
  local deaths = (tonumber(field(id, "deaths")) or 0) + 1
  redis.call("HSET", job, "deaths", deaths)
  if deaths < tonumber(ARGV[3]) then
    redis.call("HSET", job, "status", "queued", "enqueued_at", ARGV[6])
    redis.call("LPUSH", queue, id)
    table.insert(given_back, id)
    return
  end
  redis.call("HSET", job, "status", "failed", "ended_at", ARGV[6], "exc_info",
    "poison: " .. deaths .. " workers died while they had this job, so it is set aside. " ..
    "Look at the workers' logs for what killed them (memory, a crash in a library), " ..
    "then enqueue it by hand")
  redis.call("ZADD", KEYS[4], math.floor(now + ARGV[4]), id)
  redis.call("SADD", KEYS[7], id)
  table.insert(set_aside, id)
end

draw_near(KEYS[3], ARGV[1])
draw_near(KEYS[5], ARGV[5])
draw_near(popped, 0)

-- Jobs whose run has stopped beating its heart.
for _, entry in ipairs(redis.call("ZRANGEBYSCORE", KEYS[3], "-inf", now)) do
  redis.call("ZREM", KEYS[3], entry)
  redis.call("DEL", "rq:execution:" .. entry)
  local id = string.match(entry, "^[^:]*")
  if field(id, "status") == "started" then give_back(id) end
end

-- Jobs that were popped and never started.
local waiting = {}
for _, id in ipairs(redis.call("LRANGE", KEYS[2], 0, -1)) do waiting[id] = true end
for _, id in ipairs(redis.call("ZRANGE", popped, 0, -1)) do
  if not waiting[id] then redis.call("ZREM", popped, id) end
end
for id in pairs(waiting) do
  local since = redis.call("ZSCORE", popped, id)
  if not since then
    redis.call("ZADD", popped, now, id)
  elseif now - since >= tonumber(ARGV[2]) then
    redis.call("ZREM", popped, id)
    redis.call("LREM", KEYS[2], 0, id)
    if field(id, "status") == "queued" then give_back(id) end
  end
end
return {given_back, set_aside}
