-- Counts an index request of a digest, or takes the last one back.
--
-- KEYS[1] index requests of this digest today (counter)  ARGV[1] 1 or -1
-- Returns how many there are now.

local count = (tonumber(redis.call("GET", KEYS[1])) or 0) + ARGV[1]
if count <= 0 then
  redis.call("DEL", KEYS[1])
elseif redis.call("TTL", KEYS[1]) > 0 then
  redis.call("SET", KEYS[1], count, "KEEPTTL")
else
  redis.call("SET", KEYS[1], count, "EX", 86400)
end
return count
