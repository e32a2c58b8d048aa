-- Gives a slot of the scanner back, and notes that the scanner answered.
--
-- KEYS[1] slots  KEYS[2] slots of the backfill  KEYS[3] digests being indexed
-- KEYS[4] answers (counter)  KEYS[5] silence of this digest
-- KEYS[6] index requests of this digest today (counter)
-- ARGV[1] lease  ARGV[2] digest  ARGV[3] "1": the scanner answered for this digest
-- ARGV[4] "1": it worked on no request, so none of the day's is spent

-- A lease that ran out may have made way for another's request for the same digest.
if redis.call("ZREM", KEYS[1], ARGV[1]) == 1 then redis.call("ZREM", KEYS[3], ARGV[2]) end
redis.call("ZREM", KEYS[2], ARGV[1])
if ARGV[3] == "1" then
  redis.call("INCR", KEYS[4])
  redis.call("DEL", KEYS[5])
end
if ARGV[4] == "1" and redis.call("EXISTS", KEYS[6]) == 1 and redis.call("DECR", KEYS[6]) <= 0 then
  redis.call("DEL", KEYS[6])
end
return redis.status_reply("OK")
