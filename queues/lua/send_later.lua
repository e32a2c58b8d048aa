-- Ends a run whose job is to run again later, in one step.
--
-- KEYS[1] rq:wip:<lane>  KEYS[2] rq:scheduled:<lane>  KEYS[3] rq:job:<id>
-- KEYS[4] rq:execution:<id>:<run>
-- ARGV[1] <id>:<run>  ARGV[2] job id  ARGV[3] seconds from now  ARGV[4] the job's meta, JSON
-- Returns 0 if the job was given to another worker meanwhile, else 1.

if redis.call("ZREM", KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call("DEL", KEYS[4])
local time = redis.call("TIME")
redis.call("ZADD", KEYS[2], time[1] + time[2] / 1000000 + ARGV[3], ARGV[2])
redis.call("HSET", KEYS[3], "status", "scheduled", "meta", ARGV[4])
redis.call("HINCRBY", KEYS[3], "number_of_retries", 1)
-- A job that ended a run in good order is not what kills workers.
redis.call("HDEL", KEYS[3], "deaths")
return 1
