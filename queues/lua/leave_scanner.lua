-- Gives a slot of the scanner back, and notes that the scanner answered.
--
-- KEYS[1] slots  KEYS[2] slots of the backfill  KEYS[3] digests being indexed
-- KEYS[4] answers (counter)  KEYS[5] silence of this digest
-- ARGV[1] lease  ARGV[2] digest  ARGV[3] "1": the scanner answered for this digest

-- A lease that ran out may have made way for another's request for the same digest.
if redis.call("ZREM", KEYS[1], ARGV[1]) == 1 then redis.call("ZREM", KEYS[3], ARGV[2]) end
redis.call("ZREM", KEYS[2], ARGV[1])
if ARGV[3] == "1" then
  redis.call("INCR", KEYS[4])
  redis.call("DEL", KEYS[5])
end
return redis.status_reply("OK")
