-- The settling: raises the number of a session, so that what it has sent before changes nothing.
--
--   KEYS  the session
--   ARGV  its number, as it is known
--
-- Answers the number from now on, or 0 if the session has ended, which settles what it has sent,
-- too. Twice is the same as once: a number that another has raised already is as good.

local session = redis.call('GET', KEYS[1])
if not session then
  return 0
end
local number, rest = string.match(session, '^(%d+)(:.*)$')
if tonumber(number) > tonumber(ARGV[1]) then
  return tonumber(number)
end
redis.call('SET', KEYS[1], string.format('%.0f', ARGV[1] + 1) .. rest, 'KEEPTTL')
return tonumber(ARGV[1]) + 1
