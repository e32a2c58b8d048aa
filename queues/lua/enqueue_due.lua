-- Moves scheduled jobs whose time has come to their queue.
--
-- KEYS[1] rq:scheduled:<lane>  KEYS[2] rq:queue:<lane>
-- ARGV[1] now, unix seconds    ARGV[2] at most so many    ARGV[3] now, as RQ writes a time
-- Returns how many were moved.

local moved = 0
for _, id in ipairs(redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", ARGV[1], "LIMIT", 0, ARGV[2])) do
  redis.call("ZREM", KEYS[1], id)
  local job = "rq:job:" .. id
  if redis.call("HGET", job, "status") == "scheduled" then
    redis.call("HSET", job, "status", "queued", "enqueued_at", ARGV[3])
    redis.call("RPUSH", KEYS[2], id)
    moved = moved + 1
  end
end
return moved
