// The Lua scripts that append to the log and report where it is.
import { ACCOUNTS } from "./accounts.ts";
import { EXPIRY } from "./expiry.ts";
import { fullScript, logScript } from "./lua.ts";

/**
 * Appends an event and publishes it to its channels.
 *
 * ARGV: channel prefix, candidate for an epoch, name of the append counter, number of the append, seen epoch and position, idempotency key,
 * fingerprint, idempotency window, recipient, the retained events, bytes and age of each key's channel, or one of each for all, the engine's age,
 * `1` if channels have retentions of their own, most channels and bytes of the log, ttl of the log, text, number of keys, keys, and then the name
 * of the owner of each key, or one for all. A negative bound means no bound.
 *
 * An event of an inbox is sent to every process, because no process subscribes to inboxes. So is one of many channels whose copies would be large:
 * a process that has some of them would receive as many.
 *
 * Returns `ok`, epoch, position and whether the event was repeated; or `no-counter`, `stale`, `key-reused` or `unknown-client`.
 */
export const APPEND: string = fullScript(
  ACCOUNTS,
  EXPIRY,
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
now = millis()
if ARGV[10] ~= '' and not isPresent(ARGV[10], now) then return {'unknown-client'} end

log = provedLog(ARGV[2], ARGV[5], ARGV[6], tonumber(ARGV[16]))
local epoch, seq = log.epoch, log.head + 1
local position = num(seq)
redis.call('SET', counter, ARGV[4] .. ' ' .. epoch .. ' ' .. position, 'PX', 86400000)
if known then redis.call('SET', known, epoch .. ' ' .. position .. ' ' .. ARGV[8]) end
if known and window > 0 then redis.call('PEXPIRE', known, ARGV[9]) end
local engineAge, hasOwn, retentions, longest = tonumber(ARGV[12]), ARGV[13] == '1', {}, nil
for events, bytes, age in string.gmatch(ARGV[11], '([^ ,]+) ([^ ,]+) ([^ ,]+)') do
  retentions[#retentions + 1] = {tonumber(events), tonumber(bytes), tonumber(age)}
  longest = math.max(longest or 0, tonumber(age))
end
local mostChannels, mostBytes = tonumber(ARGV[14]), tonumber(ARGV[15])
local text, keys, members, owners, last = ARGV[17], {}, {}, {}, {position, 'head'}
local first = 19 + tonumber(ARGV[18])
for index = 19, first - 1 do
  keys[#keys + 1] = ARGV[index]
  members[#members + 1] = 'c' .. ARGV[index]
end
members[#members + 1] = 'p' .. num(log.swept + 1)
for index = first, #ARGV do owners[#owners + 1] = ownerOf(ARGV[index]) end

local records = fetch(keyOf(epoch, 'data'), members)
left = 100 + #keys
local isSwept = sweep(engineAge, table.remove(records))
left = math.max(left, 0) + 100 + 4 * #keys
local charge = {size = #text + #epoch + #position + 6, time = now, references = 0, owners = {}}
if hasOwn and longest ~= engineAge then charge.age = longest end
charges[seq], changed[seq] = charge, true
local channels, previous, before, isNew = {}, {}, forgottenOf(log, keys), false
for index, record in ipairs(records) do
  local key, owner = keys[index], owners[index] or owners[1]
  local events, bytes, age = unpack(retentions[index] or retentions[1])
  local channel = {key = key, last = 0, count = 0, total = 0, gone = log.swept, goneCount = 0, goneTotal = 0}
  if record then channel = parseChannel(key, record) else isNew = true end
  previous[index] = record and channel.last or before[index]
  skipSwept(channel)
  if isEmpty(channel) and channel.owner ~= owner then
    if channel.owner then add(recordDeltas, channel.owner, -1) end
    add(recordDeltas, owner, 1)
    channel.owner = owner
  end
  channel.last, channel.count, channel.total = seq, channel.count + 1, channel.total + charge.size
  retain(seq, charge, channel.owner)
  local headers = indexOf(epoch, key)
  local header = string.format(
    '%.0f %.0f %.0f %.0f %.0f %.0f', seq, previous[index], now, charge.size, channel.count, channel.total
  )
  redis.call('ZADD', headers, position, header)
  if age >= 0 then redis.call('PEXPIRE', headers, num(age + 60000)) end
  local isOld = hasOwn and olderThan(age)
  dropOldest(channel, function(header)
    return (events >= 0 and channel.count - channel.goneCount > events) or (bytes >= 0 and channel.total - channel.goneTotal > bytes)
      or (isOld and isOld(header))
  end)
  if isOld and channel.gone < seq then redis.call('ZADD', keyOf(epoch, 'expiry'), 'NX', num(now + age), num(age) .. ' ' .. key) end
  channels[index] = channel
  last[#last + 1] = position
  last[#last + 1] = members[index]
end
callAll('ZADD', lastOf(epoch), last)
local message = {epoch .. ' ' .. log.secret, position, num(#keys)}
if charge.references > 0 then
  writes = {'e' .. position, num(#keys) .. '\\n' .. table.concat(keys, '\\n') .. '\\n' .. text}
end
save(channels)
if hasOwn then
  local ttl = tonumber(ARGV[16])
  if ttl >= 0 then redis.call('PEXPIRE', keyOf(epoch, 'expiry'), ttl, 'NX') end
  extendLife(epoch, ttl, 'GT')
  isSwept = expire(8) and isSwept
end
if isSwept and mostBytes >= 0 then evict(mostBytes) end
left = math.max(left, 0) + 2 * #keys
if isNew and mostChannels >= 0 then forget(mostChannels) end
flush()

for index, key in ipairs(keys) do
  message[#message + 1] = num(previous[index])
  message[#message + 1] = key
end
message[#message + 1] = text
local whole = table.concat(message, '\\n')
local toAll = #keys >= 16 and #keys * #whole > 65536
for _, key in ipairs(keys) do toAll = toAll or kindOf(key) == '@' end
if toAll then redis.call('PUBLISH', ARGV[1] .. ':inbox', whole)
else for _, key in ipairs(keys) do redis.call('PUBLISH', ARGV[1] .. ':feed:' .. key, whole) end end
return {'ok', epoch, position, '0'}
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
local log = provedLog(ARGV[2], ARGV[4], ARGV[5], ttl)
local epoch = log.epoch
extendLife(epoch, ttl, 'GT')
local start, changes = base .. ':checkpoint:' .. ARGV[3], {}
if parts > 1 and part == 1 then redis.call('SET', start, epoch .. ' ' .. num(log.head), 'PX', 60000) end
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
local last = lastPositions(log, 10)
for index = 1, #last do last[index] = num(last[index]) end
local line = table.concat({ARGV[6], ARGV[7], ARGV[8], epoch, log.secret, num(log.head), num(log.forgottenThrough)}, ' ')
redis.call('PUBLISH', ARGV[1] .. ':checkpoint:' .. ARGV[3], line .. '\\n' .. table.concat(last, ' ') .. table.concat(changes))
return 'ok'
`);
