-- Ends a run whose job has its result, in one step.
--
-- KEYS[1] rq:wip:<lane>  KEYS[2] rq:execution:<id>:<run>  KEYS[3] rq:executions:<id>
-- KEYS[4] rq:job:<id>    KEYS[5] rq:results:<id>          KEYS[6] rq:finished:<lane>
-- KEYS[7] rq:worker:<name>  KEYS[8] rq:worker:<name>:executions
-- KEYS[9] rescan:<name>:again, field <id> -> rank
-- ARGV[1] job id  ARGV[2] run  ARGV[3] s the result is kept  ARGV[4] now, as RQ writes a time
-- ARGV[5] s the run took  ARGV[6..] fields of the result
--
-- Returns 0 if the job was given to another worker meanwhile, 1 if it has ended, 2 if its manifest
-- was asked for again while it ran.

local id, run, kept = ARGV[1], ARGV[2], tonumber(ARGV[3])
local entry = id .. ":" .. run
if redis.call("ZREM", KEYS[1], entry) == 0 then return 0 end
redis.call("DEL", KEYS[2])
redis.call("ZREM", KEYS[3], run)
redis.call("SREM", KEYS[8], entry)

redis.call("HSET", KEYS[4], "status", "finished", "ended_at", ARGV[4])
redis.call("EXPIRE", KEYS[4], kept)
redis.call("XADD", KEYS[5], "MAXLEN", "~", 10, "*", unpack(ARGV, 6))
redis.call("EXPIRE", KEYS[5], kept)
redis.call("ZADD", KEYS[6], redis.call("TIME")[1] + kept, id)

redis.call("HINCRBY", KEYS[7], "successful_job_count", 1)
redis.call("HINCRBYFLOAT", KEYS[7], "total_working_time", ARGV[5])
return redis.call("HEXISTS", KEYS[9], id) == 1 and 2 or 1
