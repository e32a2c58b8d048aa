-- Enqueues one rescan job, at most one a manifest, and never loses a wake-up.
--
-- KEYS[1] rq:job:<id>            KEYS[2] rq:queues
-- KEYS[3] rescan:<name>:again    manifests to look at once more, field <id> -> rank
-- ARGV[1] job id  ARGV[2] lane to enqueue on  ARGV[3] main lane  ARGV[4] rank of the reason
-- ARGV[5] "1": to the front  ARGV[6] now, unix seconds  ARGV[7..] fields of the job's hash
--
-- Returns 1 queued, 2 was waiting already, 3 is running: will be looked at once more, 4 failed a
-- short while ago: left alone.

local id, lane, main, rank = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local front = ARGV[5] == "1"

local function queue_key(name) return "rq:queue:" .. name end
local function push(name)
  redis.call(front and "LPUSH" or "RPUSH", queue_key(name), id)
  redis.call("SADD", KEYS[2], queue_key(name))
end

local known = redis.pcall("HMGET", KEYS[1], "status", "origin", "rank")
if known.err then -- not a job's record: it must not keep its manifest from being enqueued
  redis.call("DEL", KEYS[1])
  known = {}
end
local status, origin = known[1], known[2] or lane
local known_rank = tonumber(known[3]) or 0
local asked = tonumber(redis.call("HGET", KEYS[3], id)) or -1

local function write_fields()
  redis.call("HSET", KEYS[1], unpack(ARGV, 7))
end

-- A queued id may have been lost with its list. Looking for it costs the list's length, so beyond
-- 10,000 it is taken at its word; the sweep asks again when the list is shorter.
local function is_in_list()
  local length = redis.call("LLEN", queue_key(origin))
  return length > 10000 or (length > 0 and redis.call("LPOS", queue_key(origin), id))
end

-- A worker has it in its hands: it may have read the reason that this enqueue would change.
local function is_popped()
  return redis.call("LPOS", queue_key(origin) .. ":intermediate", id)
end

-- Every run of a job is in the registry of started jobs under <id>:<execution>.
local function is_running()
  for _, entry in ipairs(redis.call("ZRANGE", "rq:wip:" .. origin, 0, -1)) do
    if string.sub(entry, 1, #id + 1) == id .. ":" then return true end
  end
  return false
end

if (status == "started" and is_running()) or (status == "queued" and is_popped()) then
  if rank > asked then redis.call("HSET", KEYS[3], id, rank) end
  return 3
end

-- Whoever asked while the job ran is served by its next run, if that may reset as much as they asked.
local function serve_those_who_asked()
  if math.max(rank, known_rank) >= asked then redis.call("HDEL", KEYS[3], id) end
end

-- A job that waits in the main lane stays there, whoever asks again. One that waits in the
-- backfill's is moved over for an event or a person; the sweep comes by every minute and would move
-- the whole backfill in front of the next pull.
local promoted = lane == main and origin ~= main and rank > 0
local function write_wish()
  write_fields()
  if not promoted then redis.call("HSET", KEYS[1], "origin", origin) end
end

if status == "queued" and is_in_list() then
  if rank > known_rank or promoted then
    local target = promoted and lane or origin
    if front and not promoted then redis.call("LREM", queue_key(target), 1, id) end
    write_wish()
    -- The id stays in the other lane's list; whoever pops it there sees whose it is, and drops it.
    if front or promoted then push(target) end
  end
  serve_those_who_asked()
  return 2
end

if status == "scheduled" and redis.call("ZSCORE", "rq:scheduled:" .. origin, id) then
  -- Whoever may reset more than the waiting job doesn't wait with it: what it saw is newer.
  if not (front or promoted or rank > known_rank) then
    serve_those_who_asked()
    return 2
  end
  redis.call("ZREM", "rq:scheduled:" .. origin, id)
  if known_rank > rank then
    redis.call("HSET", KEYS[1], "status", "queued", "origin", lane)
    push(lane)
    serve_those_who_asked()
    return 1
  end
end

-- The sweep comes by every minute: it leaves poison to a person, and another failure for an hour.
if status == "failed" and rank == 0 then
  local forgotten_at = redis.call("ZSCORE", "rq:failed:" .. origin, id)
  local fields = redis.call("HMGET", KEYS[1], "deaths", "failure_ttl")
  local failed_at = forgotten_at and tonumber(forgotten_at) - (tonumber(fields[2]) or 0)
  local poison = (tonumber(fields[1]) or 0) >= 3
  if poison or (failed_at and failed_at > tonumber(ARGV[6]) - 3600) then
    if rank >= asked then redis.call("HDEL", KEYS[3], id) end -- it will ask again by itself
    return 4
  end
end

-- Whatever is left of an earlier job with this id has ended, and makes way.
for _, registry in ipairs({"failed", "finished", "canceled", "deferred", "scheduled"}) do
  redis.call("ZREM", "rq:" .. registry .. ":" .. origin, id)
end
redis.call("DEL", KEYS[1], "rq:results:" .. id)
write_fields()
push(lane)
if rank >= asked then redis.call("HDEL", KEYS[3], id) end
return 1
