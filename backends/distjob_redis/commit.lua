-- The commit: one compare-and-set on one VM's value, with its wake-ups, all or nothing.
--
--   KEYS  version counter, the VM, the author's session, the sessions to wake ...
--   ARGV  the expected version ("0": no value), ":" .. the new value ("": remove it), the author's
--         number as it is known, and perhaps what to wake with: SPUBLISH in a cluster; else PUBLISH
--
-- Answers the new version (an integer); or what the VM holds instead, "version:value" or nil;
-- or a list: of the sessions that have ended, as places in KEYS counted from the author's = 0, or
-- of -1 and the author's number, if that was raised: the commit was overtaken by a settling.
-- Knows nothing of jobs: values are opaque. Runs on Redis 6.2 and later, and on Valkey.

local author = redis.call('GET', KEYS[3])
if not author then
  return {0}
end
local number, rest = string.match(author, '^(%d+)(:.*)$')
if tonumber(number) > tonumber(ARGV[3]) then
  return {-1, tonumber(number)}
end

local expected = ARGV[1]
local held = redis.call('GET', KEYS[2])
if held then
  if string.sub(held, 1, #expected + 1) ~= expected .. ':' then
    return held
  end
elseif expected ~= '0' then
  return held
end

local ended, secrets = {}, {}
for i = 4, #KEYS do
  local woken = redis.call('GET', KEYS[i])
  if woken then
    secrets[i] = string.match(woken, '^%d+:(%x+):') or ''
  else
    ended[#ended + 1] = i - 3
  end
end
if #ended > 0 then
  return ended
end

-- Microseconds since 1970 keep versions rising when the counter was lost with everything else;
-- the counter keeps them rising when the clock was set back. Both are exact in a double, which is
-- why a counter beyond that is refused.
local now = redis.call('TIME')
local version = now[1] * 1000000 + now[2]
local last = redis.call('GET', KEYS[1])
if last then
  if not string.match(last, '^%d+$') or tonumber(last) >= 2^53 then
    return redis.error_reply('DAMAGED the version counter is no number below 2^53: ' .. KEYS[1])
  end
  version = math.max(version, tonumber(last) + 1)
end
local digits = string.format('%.0f', version)

-- The VM first: a server that is out of memory refuses a script's first write only, so a SET is
-- refused before anything was changed, and a DEL, which gives memory back, still gets through.
local new = digits
if ARGV[2] == '' then
  redis.call('DEL', KEYS[2])
else
  new = digits .. ARGV[2]
  redis.call('SET', KEYS[2], new)
end
redis.call('SET', KEYS[1], digits)
if tonumber(number) < tonumber(ARGV[3]) then
  -- A fail-over has lost the settling; what came before it must not be let in again.
  redis.call('SET', KEYS[3], ARGV[3] .. rest, 'KEEPTTL')
end

if #KEYS > 3 then
  -- A subscriber that is slow must not pile up large records: it reads them instead.
  if #new > 65536 then
    new = digits
  end
  local message = string.format('%d:', #KEYS[2]) .. KEYS[2] .. new
  for i = 4, #KEYS do
    local channel, place = string.match(KEYS[i], '^(.*)%.(%d+)$')
    -- pcall: the change is made, and a wake-up is only a hint; an error would deny the change.
    redis.pcall(ARGV[4] or 'PUBLISH', channel, place .. ':' .. secrets[i] .. ':' .. message)
  end
end
return version
