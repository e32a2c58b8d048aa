-- Takes the next job of a lane and starts a run of it, in one step, unless the lane is held back.
-- RQ's own takes a pop, a read and two transactions.
--
-- KEYS[1] rescan:<name>:paused  KEYS[2] circuit of the scanner
-- KEYS[3] rq:queue:<lane>       KEYS[4] rq:queue:<lane>:intermediate  KEYS[5] rq:wip:<lane>
-- KEYS[6] rq:worker:<name>      KEYS[7] rq:worker:<name>:executions
-- ARGV[1] lane  ARGV[2] run  ARGV[3] worker's name  ARGV[4] s a heartbeat lasts
-- ARGV[5] now, as RQ writes a time  ARGV[6] id of a job that was popped already, or ""
--
-- Returns nothing when no job is queued, 0 when the lane is paused or the scanner can't be asked,
-- else {id, 1 if the run was started, the job's fields as they were}. Not started is what isn't
-- queued here (it moved to another lane, has run, or is gone), and what has no id of a rescan's.
-- A run's place in the registry of started jobs is by the server's clock alone.

local id = ARGV[6]
if id == "" then
  if redis.call("EXISTS", KEYS[1], KEYS[2]) > 0 then return 0 end
  id = redis.call("LMOVE", KEYS[3], KEYS[4], "LEFT", "RIGHT")
  if not id then return false end
end

local job = "rq:job:" .. id
local fields = redis.pcall("HGETALL", job)
if fields.err then fields = {} end -- not a job's record, whoever put it there
local known = {}
for at = 1, #fields, 2 do known[fields[at]] = fields[at + 1] end
if known.status ~= "queued" or known.origin ~= ARGV[1] then
  redis.call("LREM", KEYS[4], 1, id)
  return {id, 0, fields}
end
if not string.match(id, "^rescan%-%d+$") then return {id, 0, fields} end

local run, worker, life, moment = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local entry = id .. ":" .. run
local runs, started = "rq:executions:" .. id, "rq:execution:" .. entry
local time = redis.call("TIME")
local now = time[1] + time[2] / 1000000

redis.call("HSET", started, "id", run, "job_id", id, "created_at", now, "last_heartbeat", now,
  "worker_name", worker)
redis.call("EXPIRE", started, life)
redis.call("ZADD", runs, math.floor(now + life + 60), run)
redis.call("EXPIRE", runs, life + 60)
redis.call("ZADD", KEYS[5], now + life, entry)
redis.call("HSET", job, "status", "started", "started_at", moment, "last_heartbeat", moment,
  "worker_name", worker)
redis.call("PERSIST", job)
redis.call("LREM", KEYS[4], 1, id)
redis.call("HSET", KEYS[6], "state", "busy", "last_heartbeat", moment)
redis.call("EXPIRE", KEYS[6], life + 60)
redis.call("SADD", KEYS[7], entry)
redis.call("EXPIRE", KEYS[7], life + 60)
return {id, 1, fields}
