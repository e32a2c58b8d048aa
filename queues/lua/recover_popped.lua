-- Gives back one job that was popped by a worker which never started it.
--
-- KEYS[1] rq:queue:<lane>:intermediate  KEYS[2] rq:queue:<lane>
-- ARGV[1] job id
-- Returns 1 if it is back on its queue.

local status = redis.call("HGET", "rq:job:" .. ARGV[1], "status")
if redis.call("LREM", KEYS[1], 1, ARGV[1]) == 0 or status ~= "queued" then return 0 end
redis.call("LPUSH", KEYS[2], ARGV[1])
return 1
