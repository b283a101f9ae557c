// The Lua scripts that append to the log and report where it is.
import { fullScript, logScript } from "./lua.ts";

/**
 * Drops events that retention does not keep from a channel. A bound below 0 is no bound. Each append finds an event or two. What has become
 * old meanwhile is found by a search and dropped by one command. The looks of all searches of a script are bounded, and so are the events that
 * it drops: later appends drop the rest. Nobody reads it in the meantime, because readers leave out what is too old.
 * Everything before `low` is to be dropped, and `lowCount` is the number of the last event of it.
 */
const TRIM = `
local looks, droppable = 100, 2000
local function trim(epoch, key, time, events, bytes, age, count, total)
  local stream = streamOf(epoch, key)
  local function isKept(entry)
    local _, at, size, entryCount, entryTotal = headerOf(entry)
    return (events < 0 or count - entryCount < events) and (bytes < 0 or total - entryTotal + size <= bytes) and (age < 0 or time - at <= age)
  end
  local first
  for _ = 1, 3 do
    first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    if not first or isKept(first) then return end
    redis.call('XDEL', stream, first[1])
    if first[2][4] == '' then redis.call('XDEL', largeOf(epoch, key), first[1]) end
  end
  local _, _, _, dropped = headerOf(first)
  local low, high, lowCount = seqOf(first) + 1, nil, dropped
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if not newest then return end
  high = seqOf(newest) + 1
  while low < high and looks > 0 do
    looks = looks - 1
    local middle = math.floor((low + high) / 2)
    local entry = redis.call('XRANGE', stream, num(middle), '+', 'COUNT', 1)[1]
    if not entry or isKept(entry) then high = middle
    else
      low = seqOf(entry) + 1
      local _, _, _, entryCount = headerOf(entry)
      lowCount = entryCount
    end
  end
  if lowCount - dropped <= droppable then redis.call('XTRIM', stream, 'MINID', num(low))
  else redis.call('XTRIM', stream, 'MAXLEN', num(count - dropped - droppable)) end
  droppable = droppable - math.min(droppable, lowCount - dropped)
  first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  redis.call('XTRIM', largeOf(epoch, key), 'MINID', first and first[1] or num(high))
end
`;

/**
 * Appends an event and publishes it to its channels.
 *
 * ARGV: channel prefix, candidate for an epoch, name of the append counter, number of the append, seen epoch and position, idempotency key,
 * fingerprint, idempotency window, recipient, retained events, bytes and age, most channels, ttl of the log, text, keys.
 *
 * Returns `ok`, epoch, position and whether the event was repeated; or `no-counter`, `stale`, `key-reused` or `unknown-client`.
 */
export const APPEND: string = fullScript(
  TRIM,
  `
local counter = base .. ':appends:' .. ARGV[3]
local done = redis.call('GET', counter)
if not done then return {'no-counter'} end
local number, before = tonumber(ARGV[4]), tonumber(string.match(done, '^%d+'))
if number < before then return {'stale'} end
if number == before then
  local epoch, seq = string.match(done, '^%d+ (%S+) (%d+)$')
  if not epoch then return {'stale'} end
  return {'ok', epoch, seq, '0'}
end
local window, known = tonumber(ARGV[9]), nil
if ARGV[7] ~= '' and window ~= 0 then
  known = base .. ':key:' .. ARGV[7]
  local event = redis.call('GET', known)
  if event then
    local epoch, seq, fingerprint = string.match(event, '^(%S+) (%d+) (.*)$')
    if fingerprint ~= ARGV[8] then return {'key-reused'} end
    return {'ok', epoch, seq, '1'}
  end
end
local time = millis()
if ARGV[10] ~= '' and not isPresent(ARGV[10], time) then return {'unknown-client'} end

local ttl = tonumber(ARGV[15])
local epoch, head, forgotten, secret = provedLog(ARGV[2], ARGV[5], ARGV[6], ttl)
local seq = num(head + 1)
redis.call('SET', counter, ARGV[4] .. ' ' .. epoch .. ' ' .. seq, 'PX', 86400000)
if known then redis.call('SET', known, epoch .. ' ' .. seq .. ' ' .. ARGV[8]) end
if known and window > 0 then redis.call('PEXPIRE', known, ARGV[9]) end
local text, keys, first = ARGV[16], table.concat(ARGV, '\\n', 17), 17
local events, bytes, age, most = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])
local previous = lastPositions(epoch, forgotten, first)
local message = {epoch .. ' ' .. secret, seq, num(#previous)}
local size = #text + #epoch + #seq + 6
local event = num(#previous) .. '\\n' .. keys .. '\\n' .. text
local isLarge = #event > 1024
redis.call('ZADD', lastOf(epoch), seq, 'head')
for index = first, #ARGV do
  local key, prev = ARGV[index], num(previous[index - first + 1])
  local stream = streamOf(epoch, key)
  local newest, count, total = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1], 0, 0
  local _
  if newest then _, _, _, count, total = headerOf(newest) end
  count, total = count + 1, total + size
  local header = table.concat({prev, num(time), num(size), num(count), num(total)}, ' ')
  redis.call('XADD', stream, seq .. '-0', 'h', header, 'e', isLarge and '' or event)
  if isLarge then
    redis.call('XADD', largeOf(epoch, key), seq .. '-0', 'e', event)
    if age >= 0 then redis.call('PEXPIRE', largeOf(epoch, key), num(age + 60000)) end
  end
  redis.call('ZADD', lastOf(epoch), seq, 'c' .. key)
  trim(epoch, key, time, events, bytes, age, count, total)
  if age >= 0 then redis.call('PEXPIRE', stream, num(age + 60000)) end
  message[#message + 1] = prev
  message[#message + 1] = key
end
for _ = 1, most < 0 and 0 or math.min(64, redis.call('ZCARD', lastOf(epoch)) - 1 - most) do
  local oldest = redis.call('ZPOPMIN', lastOf(epoch))
  local key = string.sub(oldest[1], 2)
  redis.call('UNLINK', streamOf(epoch, key), largeOf(epoch, key))
  redis.call('HSET', base .. ':log', 'forgotten', oldest[2])
end
message[#message + 1] = text
local whole, toInboxes = table.concat(message, '\\n'), false
for index = first, #ARGV do
  local key = ARGV[index]
  if string.sub(key, 1, 1) == '@' then toInboxes = true
  else redis.call('PUBLISH', ARGV[1] .. ':feed:' .. key, whole) end
end
if toInboxes then redis.call('PUBLISH', ARGV[1] .. ':inbox', whole) end
return {'ok', epoch, seq, '0'}
`,
);

/**
 * Publishes a checkpoint to one process.
 *
 * ARGV: channel prefix, candidate for an epoch, process, seen epoch and position, token and nonce, part, parts, ttl of the log,
 * keys.
 *
 * A checkpoint of many keys is requested in parts, one after another. The last part determines the checkpoint's place in the feed. It also
 * lists all channels that changed since the first part, so that the parts together say what one script in place of the last part would say.
 *
 * Returns `ok`, or `again` if the log was replaced between two parts.
 */
export const CHECKPOINT: string = logScript(`
local part, parts, ttl = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local epoch, head, forgotten, secret = provedLog(ARGV[2], ARGV[4], ARGV[5], ttl)
extendLife(epoch, ttl)
local start, changes = base .. ':checkpoint:' .. ARGV[3], {}
if parts > 1 and part == 1 then redis.call('SET', start, epoch .. ' ' .. num(head), 'PX', 60000) end
if parts > 1 and part == parts then
  local firstEpoch, firstHead = string.match(redis.call('GET', start) or '', '^(%S+) (%d+)$')
  redis.call('DEL', start)
  if firstEpoch ~= epoch then return 'again' end
  local changed = redis.call('ZRANGE', lastOf(epoch), '(' .. firstHead, '+inf', 'BYSCORE', 'WITHSCORES')
  for index = 1, #changed, 2 do
    local member = changed[index]
    if member ~= 'head' then changes[#changes + 1] = '\\n' .. changed[index + 1] .. ' ' .. string.sub(member, 2) end
  end
end
local last = lastPositions(epoch, forgotten, 10)
for index = 1, #last do last[index] = num(last[index]) end
local line = table.concat({ARGV[6], ARGV[7], ARGV[8], epoch, secret, num(head), num(forgotten)}, ' ')
redis.call('PUBLISH', ARGV[1] .. ':checkpoint:' .. ARGV[3], line .. '\\n' .. table.concat(last, ' ') .. table.concat(changes))
return 'ok'
`);
