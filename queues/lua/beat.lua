-- Beats the heart of a run, if it hasn't been taken for dead.
--
-- KEYS[1] rq:wip:<lane>  KEYS[2] rq:execution:<id>:<run>  ARGV[1] <id>:<run>  ARGV[2] seconds
-- Returns 1 while the run is known. The server's clock alone decides.

if not redis.call("ZSCORE", KEYS[1], ARGV[1]) then return 0 end
local time = redis.call("TIME")
redis.call("ZADD", KEYS[1], time[1] + time[2] / 1000000 + ARGV[2], ARGV[1])
redis.call("HSET", KEYS[2], "last_heartbeat", time[1])
redis.call("EXPIRE", KEYS[2], ARGV[2])
return 1
