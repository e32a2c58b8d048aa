-- Moves scheduled jobs whose time has come to their queue.
--
-- KEYS[1] rq:scheduled:<lane>  KEYS[2] rq:queue:<lane>
-- ARGV[1] at most so many      ARGV[2] now, as RQ writes a time
-- Returns how many were moved. The server's clock alone decides.

local time = redis.call("TIME")
local now = time[1] + time[2] / 1000000
local moved = 0
for _, id in ipairs(redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", now, "LIMIT", 0, ARGV[1])) do
  redis.call("ZREM", KEYS[1], id)
  local job = "rq:job:" .. id
  if redis.pcall("HGET", job, "status") == "scheduled" then
    redis.call("HSET", job, "status", "queued", "enqueued_at", ARGV[2])
    redis.call("RPUSH", KEYS[2], id)
    moved = moved + 1
  end
end
return moved
