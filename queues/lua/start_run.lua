-- Starts a run of a popped job, in one step: RQ's own takes two transactions.
--
-- KEYS[1] rq:wip:<lane>  KEYS[2] rq:execution:<id>:<run>  KEYS[3] rq:executions:<id>
-- KEYS[4] rq:job:<id>    KEYS[5] rq:queue:<lane>:intermediate
-- KEYS[6] rq:worker:<name>  KEYS[7] rq:worker:<name>:executions
-- ARGV[1] job id  ARGV[2] run  ARGV[3] worker's name  ARGV[4] s a heartbeat lasts
-- ARGV[5] now, as RQ writes a time
-- A run's place in the registry of started jobs is by the server's clock alone.

local id, run, worker, life, moment = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local entry = id .. ":" .. run
local time = redis.call("TIME")
local now = time[1] + time[2] / 1000000

redis.call("HSET", KEYS[2], "id", run, "job_id", id, "created_at", now, "last_heartbeat", now,
  "worker_name", worker)
redis.call("EXPIRE", KEYS[2], life)
redis.call("ZADD", KEYS[3], math.floor(now + life + 60), run)
redis.call("EXPIRE", KEYS[3], life + 60)
redis.call("ZADD", KEYS[1], now + life, entry)
redis.call("HSET", KEYS[4], "status", "started", "started_at", moment, "last_heartbeat", moment,
  "worker_name", worker)
redis.call("PERSIST", KEYS[4])
redis.call("LREM", KEYS[5], 1, id)
redis.call("HSET", KEYS[6], "state", "busy", "last_heartbeat", moment)
redis.call("EXPIRE", KEYS[6], life + 60)
redis.call("SADD", KEYS[7], entry)
redis.call("EXPIRE", KEYS[7], life + 60)
return redis.status_reply("OK")
