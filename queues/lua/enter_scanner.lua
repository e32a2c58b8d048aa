-- Takes one of the scanner's slots for an index request, if one may be sent now.
--
-- KEYS[1] slots (sorted set: lease -> expiry)        KEYS[2] slots of the backfill, likewise
-- KEYS[3] digests being indexed (sorted set)         KEYS[4] circuit
-- KEYS[5] index requests of this digest today (counter)
-- ARGV[1] lease  ARGV[2] digest  ARGV[3] lease's life, ms  ARGV[4] slots in all
-- ARGV[5] "1": backfill  ARGV[6] requests a day, 0 for no limit
--
-- A request is counted here, and taken back by leave_scanner.lua of whoever sent none: meanwhile the
-- digest is held, so nobody meets the count that is one too high. Who dies in between leaves it so.
--
-- Returns 0 entered, 1 circuit open, 2 digest busy, 3 no slot, 4 budget spent.
-- The server's clock alone decides, so clocks that differ between machines do no harm.

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expiry = string.format("%.0f", now + ARGV[3])

if redis.call("EXISTS", KEYS[4]) == 1 then return 1 end
for index = 1, 3 do
  redis.call("ZREMRANGEBYSCORE", KEYS[index], "-inf", now)
  -- Of a clock that was set back: no lease ends later than one that begins now.
  for _, lease in ipairs(redis.call("ZRANGEBYSCORE", KEYS[index], "(" .. expiry, "+inf")) do
    redis.call("ZADD", KEYS[index], expiry, lease)
  end
end
if redis.call("ZSCORE", KEYS[3], ARGV[2]) then return 2 end

local limit, backfill = tonumber(ARGV[4]), ARGV[5] == "1"
if redis.call("ZCARD", KEYS[1]) >= limit then return 3 end
if backfill and redis.call("ZCARD", KEYS[2]) >= math.max(1, math.floor(limit / 2)) then return 3 end

local budget, used = tonumber(ARGV[6]), tonumber(redis.call("GET", KEYS[5])) or 0
if budget > 0 and used >= budget then return 4 end

redis.call("ZADD", KEYS[1], expiry, ARGV[1])
if backfill then redis.call("ZADD", KEYS[2], expiry, ARGV[1]) end
redis.call("ZADD", KEYS[3], expiry, ARGV[2])
if redis.call("TTL", KEYS[5]) > 0 then
  redis.call("SET", KEYS[5], used + 1, "KEEPTTL")
else
  redis.call("SET", KEYS[5], used + 1, "EX", 86400)
end
return 0
