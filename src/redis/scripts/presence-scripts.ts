import { ofBoth, ofPresence } from "./lua.ts";

/**
 * ARGV: process, lease, linger, the name under which its appends were counted before and the one from now on, channel prefix. Appends under
 * the name before are refused from now on, if the client library should send one of them again.
 */
export const HELLO: string = ofPresence(`
local allowed = {
  {'XADD', base .. ':e:s:', '1-0', 'k', 'v'}, {'ZPOPMIN', base .. ':e:last'}, {'HINCRBY', base .. ':at:p', 'f', '1'},
  {'INFO', 'server'}, {'PUBLISH', ARGV[6] .. ':f:', ''}, {'UNLINK', base .. ':e:s:'}, {'RENAME', base .. ':a', base .. ':b'},
}
for _, call in ipairs(allowed) do
  if not redis.acl_check_cmd(unpack(call)) then return redis.error_reply('NOPERM scripts of this user may not call ' .. call[1]) end
end
redis.call('SET', base .. ':n:' .. ARGV[5], '0', 'PX', 86400000)
if ARGV[4] ~= '' then redis.call('DEL', base .. ':n:' .. ARGV[4]) end
alive(ARGV[1], millis(), tonumber(ARGV[2]), tonumber(ARGV[3]))
return 'ok'
`);

/** ARGV: process, lease, linger, rule, channel prefix, then client id and subject of each presence. */
export const ENTER: string = ofPresence(`
local process, time, rule, answers = ARGV[1], millis(), ARGV[4], {}
alive(process, time, tonumber(ARGV[2]), tonumber(ARGV[3]))
local living = redis.call('ZRANGE', procs, '(' .. num(time), '+inf', 'BYSCORE')
for index = 6, #ARGV, 2 do
  local clientId, both, answer = ARGV[index], ARGV[index] .. '\\n' .. ARGV[index + 1], 'entered'
  if isWithin(barred, clientId, time) then answer = 'barred' end
  local isHere, isElsewhere = false, false
  if answer == 'entered' and rule ~= 'allow' then
    for _, other in ipairs(living) do
      if redis.call('HEXISTS', at(other), both) == 1 then
        if other == process then isHere = true else isElsewhere = true end
      end
    end
    if rule == 'reject' and (isHere or isElsewhere) then answer = 'taken' end
  end
  if answer == 'entered' then
    redis.call('HINCRBY', at(process), clientId, 1)
    redis.call('HINCRBY', at(process), both, 1)
    -- Nothing that was ordered before is for this one.
    answer = stamp()
    if isElsewhere and rule == 'replace' then order(ARGV[5], '!replace\\n' .. process .. '\\n0\\n' .. both) end
  end
  answers[#answers + 1] = answer
end
return answers
`);

/** ARGV: process, client id, subject, linger. */
export const LEAVE: string = ofPresence(`
local process, clientId = ARGV[1], ARGV[2]
if tonumber(ARGV[4]) > 0 then remember(lingering, clientId, millis() + tonumber(ARGV[4])) end
for _, field in ipairs({clientId, clientId .. '\\n' .. ARGV[3]}) do
  local count = tonumber(redis.call('HGET', at(process), field) or '0')
  if count > 1 then redis.call('HINCRBY', at(process), field, -1)
  elseif count == 1 then redis.call('HDEL', at(process), field) end
end
return 'ok'
`);

/** ARGV: client ids, each with the milliseconds that it lingers for. */
export const LINGER: string = ofPresence(`
local time = millis()
for index = 1, #ARGV, 2 do remember(lingering, ARGV[index], time + tonumber(ARGV[index + 1])) end
return 'ok'
`);

/** ARGV: process, lease, linger, part, parts, the name under which appends are counted, then client id and subject of each presence. What is left behind by others is cleared as well. */
export const RENEW: string = ofBoth(`
local process, time = ARGV[1], millis()
local made = at(process) .. ':new'
redis.call('ZADD', procs, num(time + tonumber(ARGV[2])), process)
if ARGV[4] == '1' then redis.call('DEL', made) end
redis.call('PEXPIRE', base .. ':n:' .. ARGV[6], 86400000)
for index = 7, #ARGV, 2 do
  redis.call('HINCRBY', made, ARGV[index], 1)
  redis.call('HINCRBY', made, ARGV[index] .. '\\n' .. ARGV[index + 1], 1)
end
if ARGV[4] ~= ARGV[5] then
  redis.call('PEXPIRE', made, 60000)
  return 'ok'
end
redis.call('HSET', made, '', ARGV[3])
redis.call('RENAME', made, at(process))
alive(process, time, tonumber(ARGV[2]), tonumber(ARGV[3]))
reap(time)
local old = redis.call('SRANDMEMBER', base .. ':old')
if old then
  local members = redis.call('ZPOPMIN', lastOf(old), 500)
  for index = 1, #members, 2 do
    if members[index] ~= 'head' then redis.call('UNLINK', streamOf(old, string.sub(members[index], 2))) end
  end
  if #members < 1000 then redis.call('SREM', base .. ':old', old) end
end
return 'ok'
`);

/** ARGV: client id. */
export const BARRED: string = ofPresence(`
return isWithin(barred, ARGV[1], millis()) and '1' or '0'
`);

/** ARGV: the id of the last order that is known, or nothing: then the answer is that of the last one given; else what was given after it. */
export const ORDERS: string = ofPresence(`
local orders, answers = base .. ':orders', {}
if ARGV[1] == '' then
  local last = redis.call('XREVRANGE', orders, '+', '-', 'COUNT', 1)[1]
  return {last and string.match(last[1], '^%d+') or '0'}
end
for _, entry in ipairs(redis.call('XRANGE', orders, '(' .. ARGV[1], '+')) do
  answers[#answers + 1] = entry[2][2] .. '\\n' .. string.match(entry[1], '^%d+')
end
return answers
`);

/** ARGV: process, client id, milliseconds, channel prefix. */
export const DISCONNECT: string = ofPresence(`
local process, clientId, time, count = ARGV[1], ARGV[2], millis(), 0
if tonumber(ARGV[3]) > 0 then remember(barred, clientId, time + tonumber(ARGV[3])) end
for _, other in ipairs(redis.call('ZRANGE', procs, '(' .. num(time), '+inf', 'BYSCORE')) do
  if other ~= process then count = count + tonumber(redis.call('HGET', at(other), clientId) or '0') end
end
order(ARGV[4], '!disconnect\\n' .. process .. '\\n' .. ARGV[3] .. '\\n' .. clientId .. '\\n')
return num(count)
`);

/** ARGV: process, linger, the name under which its appends are counted. */
export const PART: string = ofPresence(`
local process, time = ARGV[1], millis()
alive(process, time, 0, tonumber(ARGV[2]))
redis.call('DEL', base .. ':n:' .. ARGV[3])
reap(time)
return 'ok'
`);
