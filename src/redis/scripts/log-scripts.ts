import { ofBoth, ofLog } from "./lua.ts";

/**
 * ARGV: channel prefix, candidate for an epoch, process, number of the append, epoch and position seen, nonce, fingerprint, key window, recipient,
 * events, bytes, age, most channels, ttl of the log, text, keys.
 */
export const APPEND: string = ofBoth(`
local counter = base .. ':n:' .. ARGV[3]
local done = redis.call('GET', counter)
if not done then return {'gone'} end
local number, before = tonumber(ARGV[4]), tonumber(string.match(done, '^%d+'))
if number < before then return {'stale'} end
if number == before then
  local epoch, seq = string.match(done, '^%d+ (%S+) (%d+)$')
  if not epoch then return {'stale'} end
  return {'ok', epoch, seq, '0'}
end
local window, nonce = tonumber(ARGV[9]), nil
if ARGV[7] ~= '' and window ~= 0 then
  nonce = base .. ':k:' .. ARGV[7]
  local known = redis.call('GET', nonce)
  if known then
    local epoch, seq, print = string.match(known, '^(%S+) (%d+) (.*)$')
    if print ~= ARGV[8] then return {'reused'} end
    return {'ok', epoch, seq, '1'}
  end
end
local time = millis()
if ARGV[10] ~= '' and not present(ARGV[10], time) then return {'unknown'} end

local ttl = tonumber(ARGV[15])
local epoch, head, forgotten = proved(ARGV[2], ARGV[5], ARGV[6], ttl)
local seq = num(head + 1)
redis.call('SET', counter, ARGV[4] .. ' ' .. epoch .. ' ' .. seq, 'PX', 86400000)
if nonce then redis.call('SET', nonce, epoch .. ' ' .. seq .. ' ' .. ARGV[8]) end
if nonce and window > 0 then redis.call('PEXPIRE', nonce, ARGV[9]) end
local text, keys, first = ARGV[16], table.concat(ARGV, '\\n', 17), 17
local events, bytes, age, most = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])
local previous = lasts(epoch, forgotten, first)
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
  trim(epoch, key, time, events, bytes, age, 64, total + size)
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
  else redis.call('PUBLISH', ARGV[1] .. ':f:' .. key, whole) end
end
if toInboxes then redis.call('PUBLISH', ARGV[1] .. ':inbox', whole) end
return {'ok', epoch, seq, '0'}
`);

/**
 * ARGV: channel prefix, candidate for an epoch, process, epoch and position seen, token, part, parts, ttl of the log, keys.
 *
 * Of many keys a part is asked for at a time, and the mark is where the last part is. That one has also whatever changed since the first part,
 * so that together they say what a single script would have said in the last one's place.
 */
export const MARK: string = ofLog(`
local part, parts, ttl = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local epoch, head, forgotten = proved(ARGV[2], ARGV[4], ARGV[5], ttl)
live(epoch, ttl)
local memory, changes = base .. ':mark:' .. ARGV[3], {}
if parts > 1 and part == 1 then redis.call('SET', memory, epoch .. ' ' .. num(head), 'PX', 60000) end
if parts > 1 and part == parts then
  local wasEpoch, wasHead = string.match(redis.call('GET', memory) or '', '^(%S+) (%d+)$')
  redis.call('DEL', memory)
  if wasEpoch ~= epoch then return 'again' end
  local changed = redis.call('ZRANGE', lastOf(epoch), '(' .. wasHead, '+inf', 'BYSCORE', 'WITHSCORES')
  for index = 1, #changed, 2 do
    local member = changed[index]
    if member ~= 'head' then changes[#changes + 1] = '\\n' .. changed[index + 1] .. ' ' .. string.sub(member, 2) end
  end
end
local all = lasts(epoch, forgotten, 10)
for index = 1, #all do all[index] = num(all[index]) end
redis.call('PUBLISH', ARGV[1] .. ':echo:' .. ARGV[3], table.concat({ARGV[6], ARGV[7], ARGV[8], epoch, num(head), num(forgotten)}, ' ') ..
  '\\n' .. table.concat(all, ' ') .. table.concat(changes))
return 'ok'
`);

/** ARGV: epoch, position, bytes, events, bytes and age of retention, keys. */
export const READ: string = ofLog(`
local epoch, head, forgotten = current()
if epoch ~= ARGV[1] then return {epoch or ''} end
local after, room, time, from = tonumber(ARGV[2]), tonumber(ARGV[3]), millis(), 7
local last, dropped, lanes = lasts(epoch, forgotten, from), {}, {}
for index = from, #ARGV do
  local key = ARGV[index]
  trim(epoch, key, time, tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), 1000)
  local stream = streamOf(epoch, key)
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  dropped[#dropped + 1] = first and first[2][6] or num(last[index - from + 1])
  if first and last[index - from + 1] > after then lanes[#lanes + 1] = {stream = stream, at = after, next = 1, batch = {}} end
end

-- What a lane has next; a few are fetched at a time.
local function peek(lane)
  if lane.next > #lane.batch then
    if lane.over then return nil end
    lane.batch = redis.call('XRANGE', lane.stream, '(' .. num(lane.at) .. '-0', '+', 'COUNT', 16)
    lane.over = #lane.batch < 16
    lane.next = 1
    if #lane.batch == 0 then return nil end
    lane.at = seqOf(lane.batch[#lane.batch])
  end
  return seqOf(lane.batch[lane.next])
end

local answer, through = {epoch, '', table.concat(dropped, ' ')}, head
while true do
  local best, least
  for _, lane in ipairs(lanes) do
    local seq = peek(lane)
    if seq and (not least or seq < least) then best, least = lane, seq end
  end
  if not best then break end
  local entry = best.batch[best.next]
  local size = sizeOf(epoch, entry)
  if #answer > 3 and size > room then break end
  room = room - size
  answer[#answer + 1] = num(least)
  answer[#answer + 1] = entry[2][2]
  answer[#answer + 1] = entry[2][4]
  through = least
  for _, lane in ipairs(lanes) do if peek(lane) == least then lane.next = lane.next + 1 end end
end
local isCut = false
for _, lane in ipairs(lanes) do if peek(lane) then isCut = true end end
answer[2] = num(isCut and through or head)
return answer
`);

/** ARGV: epoch, position, most events, most bytes, events, bytes and age of retention, keys. */
export const SURVEY: string = ofLog(`
local epoch, head, forgotten = current()
if epoch ~= ARGV[1] then return {epoch or '', epoch and num(head) or '0', '0'} end
local most, room, time, from = tonumber(ARGV[3]), tonumber(ARGV[4]), millis(), 8
local last, lanes, answer = lasts(epoch, forgotten, from), {}, {epoch, num(head), ''}
for index = from, #ARGV do
  local key = ARGV[index]
  trim(epoch, key, time, tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), 1000)
  local stream = streamOf(epoch, key)
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  local line = {first and first[2][6] or num(last[index - from + 1]), '-', '-'}
  if first then
    line[2] = num(seqOf(first))
    local next = redis.call('XRANGE', stream, '(' .. ARGV[2] .. '-0', '+', 'COUNT', 1)[1]
    if next then line[3] = num(seqOf(next)) end
    lanes[#lanes + 1] = {stream = stream, at = '+', next = 1, batch = {}}
  end
  answer[#answer + 1] = table.concat(line, ' ')
end

-- What a lane has next, from the newest on.
local function peek(lane)
  if lane.next > #lane.batch then
    if lane.over then return nil end
    lane.batch = redis.call('XREVRANGE', lane.stream, lane.at, '-', 'COUNT', 16)
    lane.over = #lane.batch < 16
    lane.next = 1
    if #lane.batch == 0 then return nil end
    lane.at = '(' .. lane.batch[#lane.batch][1]
  end
  return seqOf(lane.batch[lane.next])
end

local floor, count = 0, 0
while most >= 0 or room >= 0 do
  local best, newest
  for _, lane in ipairs(lanes) do
    local seq = peek(lane)
    if seq and (not newest or seq > newest) then best, newest = lane, seq end
  end
  if not best then break end
  local left = room - sizeOf(epoch, best.batch[best.next])
  if (most >= 0 and count >= most) or (room >= 0 and left < 0) then
    floor = newest
    break
  end
  if room >= 0 then room = left end
  count = count + 1
  for _, lane in ipairs(lanes) do if peek(lane) == newest then lane.next = lane.next + 1 end end
end
answer[3] = num(floor)
return answer
`);
