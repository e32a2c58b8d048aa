-- Gives back jobs whose worker stopped beating its heart, and sets poison aside.
--
-- KEYS[1] rq:wip:<lane>  KEYS[2] rq:queue:<lane>  KEYS[3] rq:failed:<lane>
-- ARGV[1] now, unix seconds  ARGV[2] deaths that make poison  ARGV[3] now, as RQ writes a time
-- ARGV[4] when a failed job is forgotten, unix seconds
-- Returns {ids given back, ids set aside}.

local given_back, set_aside = {}, {}
for _, entry in ipairs(redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", ARGV[1])) do
  redis.call("ZREM", KEYS[1], entry)
  redis.call("DEL", "rq:execution:" .. entry)
  local id = string.match(entry, "^[^:]+")
  local job = "rq:job:" .. id
  if redis.call("HGET", job, "status") == "started" then
    local deaths = redis.call("HINCRBY", job, "deaths", 1)
    if deaths >= tonumber(ARGV[2]) then
      redis.call("HSET", job, "status", "failed", "ended_at", ARGV[3], "exc_info",
        "poison: " .. deaths .. " workers died while they ran this job, so it is set aside. " ..
        "Look at the workers' logs for what killed them (memory, a crash in a library), " ..
        "then enqueue it by hand")
      redis.call("ZADD", KEYS[3], ARGV[4], id)
      table.insert(set_aside, id)
    else
      redis.call("HSET", job, "status", "queued", "enqueued_at", ARGV[3])
      redis.call("LPUSH", KEYS[2], id)
      table.insert(given_back, id)
    end
  end
end
return {given_back, set_aside}
