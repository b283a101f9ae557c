// The Lua scripts about processes and their connections, and about commands to other processes.
import { ACCOUNTS } from "./accounts.ts";
import { EXPIRY } from "./expiry.ts";
import { fullScript, PERMISSIONS, presenceScript } from "./lua.ts";

/**
 * Prepares Redis for a process whose commands were away: checks what its user may call, starts a new append counter, and marks it as alive.
 *
 * ARGV: process, lease, linger, name of the append counter until now and from now on, channel prefix. The old counter is deleted, so that
 * an append is refused if the client library sends it again after this.
 */
export const START: string = presenceScript(
  PERMISSIONS,
  `
local refusal = refusalOf({
  {'XADD', base .. ':commands', '1-0', 'k', 'v'}, {'ZPOPMIN', base .. ':e:last'}, {'HINCRBY', base .. ':process:p', 'f', '1'},
  {'INFO', 'server'}, {'PUBLISH', ARGV[6] .. ':feed:', ''}, {'UNLINK', base .. ':e:channel:'}, {'RENAME', base .. ':a', base .. ':b'},
  {'ZINCRBY', base .. ':e:bytes', '1', 'm'}, {'ZREMRANGEBYRANK', base .. ':e:channel:', '0', '0'}, {'HKEYS', base .. ':log'},
  {'EXISTS', base .. ':e:last'}, {'ZCOUNT', base .. ':e:channel:', '0', '1'},
})
if refusal then return refusal end
redis.call('SET', base .. ':appends:' .. ARGV[5], '0', 'PX', 86400000)
if ARGV[4] ~= '' then redis.call('DEL', base .. ':appends:' .. ARGV[4]) end
markAlive(ARGV[1], millis(), tonumber(ARGV[2]), tonumber(ARGV[3]))
return 'ok'
`,
);

/**
 * Registers connections.
 *
 * ARGV: process, lease, linger, rule for duplicate ids, channel prefix, then client id and subject of each connection.
 *
 * Returns for each connection `barred`, `taken` or its stamp.
 */
export const ENTER: string = presenceScript(`
local process, time, rule, answers = ARGV[1], millis(), ARGV[4], {}
markAlive(process, time, tonumber(ARGV[2]), tonumber(ARGV[3]))
local living = redis.call('ZRANGE', processes, '(' .. num(time), '+inf', 'BYSCORE')
for index = 6, #ARGV, 2 do
  local clientId, both, answer = ARGV[index], ARGV[index] .. '\\n' .. ARGV[index + 1], 'entered'
  if isListed(barred, clientId, time) then answer = 'barred' end
  local isHere, isElsewhere = false, false
  if answer == 'entered' and rule ~= 'allow' then
    for _, other in ipairs(living) do
      if redis.call('HEXISTS', hashOf(other), both) == 1 then
        if other == process then isHere = true else isElsewhere = true end
      end
    end
    if rule == 'reject' and (isHere or isElsewhere) then answer = 'taken' end
  end
  if answer == 'entered' then
    redis.call('HINCRBY', hashOf(process), clientId, 1)
    redis.call('HINCRBY', hashOf(process), both, 1)
    -- A command with an earlier stamp does not concern this connection.
    answer = nextStamp()
    if isElsewhere and rule == 'replace' then sendCommand(ARGV[5], '!replace\\n' .. process .. '\\n0\\n' .. both) end
  end
  answers[#answers + 1] = answer
end
return answers
`);

/** Removes a connection. ARGV: process, client id, subject, linger. */
export const LEAVE: string = presenceScript(`
local process, clientId = ARGV[1], ARGV[2]
if tonumber(ARGV[4]) > 0 then
  local time = millis()
  list(lingering, clientId, time + tonumber(ARGV[4]))
  tidy(lingering, time)
end
for _, field in ipairs({clientId, clientId .. '\\n' .. ARGV[3]}) do
  local count = tonumber(redis.call('HGET', hashOf(process), field) or '0')
  if count > 1 then redis.call('HINCRBY', hashOf(process), field, -1)
  elseif count == 1 then redis.call('HDEL', hashOf(process), field) end
end
return 'ok'
`);

/** Lets client ids linger. ARGV: client ids, each followed by the milliseconds for which it lingers. */
export const LINGER: string = presenceScript(`
local time = millis()
for index = 1, #ARGV, 2 do list(lingering, ARGV[index], time + tonumber(ARGV[index + 1])) end
tidy(lingering, time)
return 'ok'
`);

/**
 * Replaces all connections of a process. Also clears away a bounded part of the events that have expired, and of what dead processes and past
 * epochs have left behind.
 *
 * ARGV: process, lease, linger, part, parts, name of the append counter, the engine's retained age, then client id and subject of each connection.
 */
export const RENEW: string = fullScript(
  ACCOUNTS,
  EXPIRY,
  `
local process, time = ARGV[1], millis()
local new = hashOf(process) .. ':new'
redis.call('ZADD', processes, num(time + tonumber(ARGV[2])), process)
if ARGV[4] == '1' then redis.call('DEL', new) end
redis.call('PEXPIRE', base .. ':appends:' .. ARGV[6], 86400000)
for index = 8, #ARGV, 2 do
  redis.call('HINCRBY', new, ARGV[index], 1)
  redis.call('HINCRBY', new, ARGV[index] .. '\\n' .. ARGV[index + 1], 1)
end
if ARGV[4] ~= ARGV[5] then
  redis.call('PEXPIRE', new, 60000)
  return 'ok'
end
redis.call('HSET', new, '', ARGV[3])
redis.call('RENAME', new, hashOf(process))
markAlive(process, time, tonumber(ARGV[2]), tonumber(ARGV[3]))
removeDead(time)
log, now, left = currentLog(), time, 500
if log then
  sweep(tonumber(ARGV[7]), redis.call('HGET', keyOf(log.epoch, 'data'), 'p' .. num(log.swept + 1)))
  expire(50)
  flush()
end
local old = redis.call('SRANDMEMBER', base .. ':old-epochs')
if old then
  local members = redis.call('ZPOPMIN', lastOf(old), 200)
  for index = 1, #members, 2 do
    local key = string.sub(members[index], 2)
    -- A log of version 0.1 before owners had streams.
    if members[index] ~= 'head' then redis.call('UNLINK', indexOf(old, key), keyOf(old, 'stream:' .. key), keyOf(old, 'large:' .. key)) end
  end
  if #members < 400 then
    redis.call('UNLINK', keyOf(old, 'expiry'), unpack(fixedKeys(old)))
    redis.call('SREM', base .. ':old-epochs', old)
  end
end
return 'ok'
`,
);

/** Returns whether a client id is barred. ARGV: client id. */
export const IS_BARRED: string = presenceScript(`
return isListed(barred, ARGV[1], millis()) and '1' or '0'
`);

/**
 * Returns the commands that were sent after a known one, each with its stamp. ARGV: the stamp of the known command. If it is empty, returns
 * only the stamp of the last command.
 */
export const COMMANDS_AFTER: string = presenceScript(`
local commands, answers = base .. ':commands', {}
if ARGV[1] == '' then
  local last = redis.call('XREVRANGE', commands, '+', '-', 'COUNT', 1)[1]
  return {last and string.match(last[1], '^%d+') or '0'}
end
for _, entry in ipairs(redis.call('XRANGE', commands, '(' .. ARGV[1], '+')) do
  answers[#answers + 1] = entry[2][2] .. '\\n' .. string.match(entry[1], '^%d+')
end
return answers
`);

/**
 * Bars a client id, and sends a command to end its connections. ARGV: process, client id, milliseconds, channel prefix, the application's
 * reason.
 *
 * Returns how many connections the other processes have.
 */
export const DISCONNECT: string = presenceScript(`
local process, clientId, time, count = ARGV[1], ARGV[2], millis(), 0
if tonumber(ARGV[3]) > 0 then
  list(barred, clientId, time + tonumber(ARGV[3]))
  tidy(barred, time)
end
for _, other in ipairs(redis.call('ZRANGE', processes, '(' .. num(time), '+inf', 'BYSCORE')) do
  if other ~= process then count = count + tonumber(redis.call('HGET', hashOf(other), clientId) or '0') end
end
sendCommand(ARGV[4], '!disconnect\\n' .. process .. '\\n' .. ARGV[3] .. '\\n' .. clientId .. '\\n' .. ARGV[5])
return num(count)
`);

/**
 * Sends a request to the other living processes; with a client id to those that have a connection of it.
 *
 * ARGV: process, client id or empty, channel prefix, message. Returns the processes that it was sent to.
 */
export const REQUEST: string = presenceScript(`
local asked = {}
for _, other in ipairs(redis.call('ZRANGE', processes, '(' .. num(millis()), '+inf', 'BYSCORE')) do
  if other ~= ARGV[1] and (ARGV[2] == '' or redis.call('HEXISTS', hashOf(other), ARGV[2]) == 1) then
    redis.call('PUBLISH', ARGV[3] .. ':checkpoint:' .. other, ARGV[4])
    asked[#asked + 1] = other
  end
end
return asked
`);

/** Removes a process that closes. Its client ids linger. ARGV: process, linger, name of the append counter. */
export const STOP: string = presenceScript(`
local process, time = ARGV[1], millis()
markAlive(process, time, 0, tonumber(ARGV[2]))
redis.call('DEL', base .. ':appends:' .. ARGV[3])
removeDead(time)
return 'ok'
`);
