// The Lua scripts that append to the log and read it.
import { fullScript, logScript } from "./lua.ts";

/**
 * Appends an event and publishes it to its channels.
 *
 * ARGV: channel prefix, candidate for an epoch, name of the append counter, number of the append, seen epoch and position, idempotency key,
 * fingerprint, idempotency window, recipient, retained events, bytes and age, most channels, ttl of the log, text, keys.
 *
 * Returns `ok`, epoch, position and whether the event was repeated; or `no-counter`, `stale`, `key-reused` or `unknown-client`.
 */
export const APPEND: string = fullScript(`
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
local epoch, head, forgotten = provedLog(ARGV[2], ARGV[5], ARGV[6], ttl)
local seq = num(head + 1)
redis.call('SET', counter, ARGV[4] .. ' ' .. epoch .. ' ' .. seq, 'PX', 86400000)
if known then redis.call('SET', known, epoch .. ' ' .. seq .. ' ' .. ARGV[8]) end
if known and window > 0 then redis.call('PEXPIRE', known, ARGV[9]) end
local text, keys, first = ARGV[16], table.concat(ARGV, '\\n', 17), 17
local events, bytes, age, most = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])
local previous = lastPositions(epoch, forgotten, first)
local message = {epoch, seq, num(#previous)}
local size = #text + #epoch + #seq + 6
redis.call('ZADD', lastOf(epoch), seq, 'head')
for index = first, #ARGV do
  local key, prev = ARGV[index], num(previous[index - first + 1])
  local stream = streamOf(epoch, key)
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  local total = newest and tonumber(newest[2][10]) or 0
  redis.call('XADD', stream, seq .. '-0', 'k', keys, 't', text, 'p', prev, 'a', num(time), 'c', num(total + size))
  redis.call('ZADD', lastOf(epoch), seq, 'c' .. key)
  trim(epoch, key, time, events, bytes, age, total + size)
  if age >= 0 then redis.call('PEXPIRE', stream, num(age + 60000)) end
  message[#message + 1] = prev
  message[#message + 1] = key
end
for _ = 1, most < 0 and 0 or math.min(64, redis.call('ZCARD', lastOf(epoch)) - 1 - most) do
  local oldest = redis.call('ZPOPMIN', lastOf(epoch))
  redis.call('UNLINK', streamOf(epoch, string.sub(oldest[1], 2)))
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
`);

/**
 * Publishes a checkpoint to one process.
 *
 * ARGV: channel prefix, candidate for an epoch, process, seen epoch and position, token, part, parts, ttl of the log, keys.
 *
 * A checkpoint of many keys is requested in parts, one after another. The last part determines the checkpoint's place in the feed. It also
 * lists all channels that changed since the first part, so that the parts together say what one script in place of the last part would say.
 *
 * Returns `ok`, or `again` if the log was replaced between two parts.
 */
export const CHECKPOINT: string = logScript(`
local part, parts, ttl = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local epoch, head, forgotten = provedLog(ARGV[2], ARGV[4], ARGV[5], ttl)
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
local line = table.concat({ARGV[6], ARGV[7], ARGV[8], epoch, num(head), num(forgotten)}, ' ')
redis.call('PUBLISH', ARGV[1] .. ':checkpoint:' .. ARGV[3], line .. '\\n' .. table.concat(last, ' ') .. table.concat(changes))
return 'ok'
`);

/**
 * Reads a page of events of several channels, in order of position.
 *
 * ARGV: epoch, position, bytes, retained events, bytes and age, keys.
 *
 * Returns the epoch, the position up to which the page is complete, the last dropped position of each channel, and then position, keys and
 * text of each event. For another epoch, returns only the current one.
 */
export const READ: string = logScript(`
local epoch, head, forgotten = currentLog()
if epoch ~= ARGV[1] then return {epoch or ''} end
local after, room, time, from = tonumber(ARGV[2]), tonumber(ARGV[3]), millis(), 7
local last, dropped, sources = lastPositions(epoch, forgotten, from), {}, {}
for index = from, #ARGV do
  local key = ARGV[index]
  trim(epoch, key, time, tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]))
  local stream = streamOf(epoch, key)
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  dropped[#dropped + 1] = first and first[2][6] or num(last[index - from + 1])
  if first and last[index - from + 1] > after then sources[#sources + 1] = {stream = stream, at = after, next = 1, batch = {}} end
end

local peek, advance = merge(sources, function(a, b) return a < b end, function(source)
  local batch = redis.call('XRANGE', source.stream, '(' .. num(source.at) .. '-0', '+', 'COUNT', 16)
  if #batch > 0 then source.at = seqOf(batch[#batch]) end
  return batch
end)
local answer, through = {epoch, '', table.concat(dropped, ' ')}, head
local entry = peek()
while entry do
  local size = sizeOf(epoch, entry)
  if #answer > 3 and size > room then break end
  room = room - size
  through = seqOf(entry)
  answer[#answer + 1] = num(through)
  answer[#answer + 1] = entry[2][2]
  answer[#answer + 1] = entry[2][4]
  advance()
  entry = peek()
end
answer[2] = num(entry and through or head)
return answer
`);

/**
 * Finds the bounds of what is retained of several channels.
 *
 * ARGV: epoch, position, most events, most bytes, retained events, bytes and age, keys.
 *
 * Returns the epoch, the head, and the position after which the newest events lie. Then a line for each channel: its last dropped position,
 * its oldest event, and its first event after the given position. For another epoch, returns only the current one and its head.
 */
export const HISTORY_BOUNDS: string = logScript(`
local epoch, head, forgotten = currentLog()
if epoch ~= ARGV[1] then return {epoch or '', epoch and num(head) or '0', '0'} end
local most, room, time, from = tonumber(ARGV[3]), tonumber(ARGV[4]), millis(), 8
local last, sources, answer = lastPositions(epoch, forgotten, from), {}, {epoch, num(head), ''}
for index = from, #ARGV do
  local key = ARGV[index]
  trim(epoch, key, time, tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]))
  local stream = streamOf(epoch, key)
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  local line = {first and first[2][6] or num(last[index - from + 1]), '-', '-'}
  if first then
    line[2] = num(seqOf(first))
    local next = redis.call('XRANGE', stream, '(' .. ARGV[2] .. '-0', '+', 'COUNT', 1)[1]
    if next then line[3] = num(seqOf(next)) end
    sources[#sources + 1] = {stream = stream, at = '+', next = 1, batch = {}}
  end
  answer[#answer + 1] = table.concat(line, ' ')
end

local peek, advance = merge(sources, function(a, b) return a > b end, function(source)
  local batch = redis.call('XREVRANGE', source.stream, source.at, '-', 'COUNT', 16)
  if #batch > 0 then source.at = '(' .. batch[#batch][1] end
  return batch
end)
local floor, count = 0, 0
while most >= 0 or room >= 0 do
  local entry = peek()
  if not entry then break end
  local left = room - sizeOf(epoch, entry)
  if (most >= 0 and count >= most) or (room >= 0 and left < 0) then
    floor = seqOf(entry)
    break
  end
  if room >= 0 then room = left end
  count = count + 1
  advance()
end
answer[3] = num(floor)
return answer
`);
