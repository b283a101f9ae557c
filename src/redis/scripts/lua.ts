// The parts that the Lua scripts share. Redis runs each script as one atomic step.

/**
 * The beginning of every script.
 *
 * A script changes nothing before it has made all of its checks. Its first write is a command that Redis refuses when it is out of memory,
 * has lost its disk or has too few replicas; after a script's first write Redis refuses no other. So each script happens completely or not
 * at all.
 *
 * Commands, for the rules of an ACL user. From the client: PING, SCRIPT LOAD, EVALSHA, WAIT (with `waitReplicas`), SUBSCRIBE and UNSUBSCRIBE.
 * In scripts: DEL, EXISTS, GET, HDEL, HEXISTS, HGET, HINCRBY, HKEYS, HLEN, HMGET, HRANDFIELD, HSET, INFO, PEXPIRE, PUBLISH, RENAME, SADD, SET,
 * SRANDMEMBER, SREM, TIME, UNLINK, XADD, XRANGE, XREVRANGE, ZADD, ZCARD, ZCOUNT, ZINCRBY, ZMSCORE, ZPOPMIN, ZRANGE, ZREM, ZREMRANGEBYRANK, ZSCORE;
 * for runs LLEN, LRANGE, PTTL and RPUSH too.
 * Keys and channels: `{prefix}` followed by anything.
 *
 * KEYS[1] is the prefix of all keys. The prefix of channels is an argument of its own, because ioredis puts its `keyPrefix` before keys and
 * not before channels.
 *
 * `fetch` returns fields of a hash, and `callAll` calls a command, both with any number of arguments: Lua passes at most some thousands at a time.
 */
const COMMON = `
local base = KEYS[1]
local function num(n) return string.format('%.0f', n) end
local function millis()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
local function callAll(command, key, args)
  for start = 1, #args, 1000 do redis.call(command, key, unpack(args, start, math.min(start + 999, #args))) end
end
local function fetch(key, fields)
  local result = {}
  for start = 1, #fields, 1000 do
    local values = redis.call('HMGET', key, unpack(fields, start, math.min(start + 999, #fields)))
    for index = 1, #values do result[#result + 1] = values[index] end
  end
  return result
end
`;

/**
 * Functions of the log. Its keys, without the prefix:
 *
 * - `log`: a hash of the `epoch`, the epoch whose keys have the present form (`format`), the server's run id (`run`) and replication id
 *   (`history`), what proves to other processes that an event in the feed is from a script (`secret`), the bytes that the log has (`bytes`), the
 *   position up to which all events have expired (`swept`), the last position of all channels that were forgotten (`forgottenThrough`), and the
 *   same for groups of channels (`f:<group>`).
 * - `<epoch>:last`: a sorted set of the head (member `head`) and the last position of each channel (member `c` and the channel's key).
 * - `<epoch>:channel:<key>`: a sorted set of the headers of a channel's events by position. A header has six numbers: position, previous position
 *   in this channel, time of the append, bytes of the event on the wire, and the events and bytes of this channel up to and including this one.
 * - `<epoch>:expiry`: a sorted set of channels by when their oldest event expires, if channels have retentions of their own: see `expiry.ts`.
 * - `<epoch>:data`: a hash. The fields `e<position>` are the events, each stored once: a line with the number of its keys, a line for each key, and
 *   the text. The other fields, and `<epoch>:order`, `<epoch>:bytes` and `<epoch>:records`, say who has what: see `accounts.ts`.
 *
 * The keys without `<key>`, except for `expiry`, are there from the beginning to the end of an epoch, with an empty member. Without one of them the
 * epoch is over.
 *
 * `identity` returns the run id of this server, the replication id of its data, and whether it has taken its data over from another server. A
 * server gets a new replication id with its first replica, and after an hour without one, and its data stay the same.
 *
 * `currentLog` returns the log, unless something of it may be missing. The head has the highest score, and among equal scores the highest name.
 * `provedLog` returns it for a process that knows the seen position, and starts a new epoch if the log cannot be proved to be complete. The
 * epoch's name depends on the server and the time, so that a command that is sent twice does not start the same epoch twice.
 *
 * `headerOf` returns the numbers of a header after the position. `forgottenOf` returns up to where channels without a record may have had events:
 * the last position of the forgotten ones of their group. A group follows from the key alone, so that all processes agree on it. `lastPositions`
 * returns the last position of each channel from `ARGV[from]` on.
 */
const LOG = `
local FIXED = {'last', 'data', 'order', 'bytes', 'records'}
local function keyOf(epoch, name) return base .. ':' .. epoch .. ':' .. name end
local function lastOf(epoch) return keyOf(epoch, 'last') end
local function indexOf(epoch, key) return base .. ':' .. epoch .. ':channel:' .. key end
local function fixedKeys(epoch)
  local keys = {}
  for index, name in ipairs(FIXED) do keys[index] = keyOf(epoch, name) end
  return keys
end

local function identity()
  local info = redis.call('INFO', 'server', 'replication')
  local isTaken = string.match(info, '\\nmaster_replid2:0+\\r') == nil
  return string.match(info, '\\nrun_id:(%x+)'), string.match(info, '\\nmaster_replid:(%x+)'), isTaken
end

local function currentLog()
  local fields = {'epoch', 'format', 'run', 'history', 'secret', 'bytes', 'swept', 'forgottenThrough'}
  local epoch, format, run, replication, secret, bytes, swept, through = unpack(redis.call('HMGET', base .. ':log', unpack(fields)))
  local server, history, isTaken = identity()
  if not epoch or format ~= epoch or run ~= server or not through then return nil end
  if replication ~= history and isTaken then return nil end
  if redis.call('EXISTS', unpack(fixedKeys(epoch))) < #FIXED then return nil end
  local top = redis.call('ZRANGE', lastOf(epoch), -1, -1, 'WITHSCORES')
  if top[1] ~= 'head' then return nil end
  return {
    epoch = epoch, head = tonumber(top[2]), secret = secret, bytes = tonumber(bytes), swept = tonumber(swept),
    forgottenThrough = tonumber(through),
  }
end

local function extendLife(epoch, ttl, ...)
  if ttl < 0 then return end
  redis.call('PEXPIRE', base .. ':log', ttl, ...)
  redis.call('PEXPIRE', keyOf(epoch, 'expiry'), ttl, ...)
  for _, key in ipairs(fixedKeys(epoch)) do redis.call('PEXPIRE', key, ttl, ...) end
end

local function startEpoch(candidate, ttl)
  local server, history = identity()
  local time = redis.call('TIME')
  local old = redis.call('HGET', base .. ':log', 'epoch')
  local name = redis.sha1hex(candidate .. server .. time[1] .. '.' .. time[2])
  local epoch, secret = string.sub(name, 1, 16), string.sub(name, 17)
  redis.call('ZADD', lastOf(epoch), 0, 'head')
  redis.call('HSET', keyOf(epoch, 'data'), '', '')
  for _, each in ipairs({'order', 'bytes', 'records'}) do redis.call('ZADD', keyOf(epoch, each), 0, '') end
  if old then redis.call('SADD', base .. ':old-epochs', old) end
  redis.call('DEL', base .. ':log')
  redis.call(
    'HSET', base .. ':log', 'epoch', epoch, 'format', epoch, 'run', server, 'history', history, 'secret', secret, 'bytes', '0', 'swept', '0',
    'forgottenThrough', '0'
  )
  extendLife(epoch, ttl)
  return {epoch = epoch, head = 0, secret = secret, bytes = 0, swept = 0, forgottenThrough = 0}
end

local function provedLog(candidate, seenEpoch, seenSeq, ttl)
  local log = currentLog()
  if not log or (log.epoch == seenEpoch and log.head < tonumber(seenSeq)) then return startEpoch(candidate, ttl) end
  return log
end

local function seqOf(entry) return tonumber(string.match(entry, '^%d+')) end

local function headerOf(entry)
  local previous, time, size, count, total = string.match(entry, '^%d+ (%d+) (%d+) (%d+) (%d+) (%d+)$')
  return tonumber(previous), tonumber(time), tonumber(size), tonumber(count), tonumber(total)
end

local function kindOf(key) return string.sub(key, 1, 1) end
local function groupOf(key) return string.match(key, '^#[^/:.]*[/:.]') or kindOf(key) end

local function forgottenOf(log, keys)
  local result, positions, groups, fields, names = {}, {}, {}, {}, {}
  for index, key in ipairs(keys) do
    result[index] = 0
    if log.forgottenThrough > 0 then
      groups[index] = groupOf(key)
      for _, group in ipairs({groups[index], kindOf(key)}) do
        if not positions[group] then
          positions[group] = 0
          names[#names + 1] = group
          fields[#fields + 1] = 'f:' .. group
        end
      end
    end
  end
  for index, position in ipairs(fetch(base .. ':log', fields)) do positions[names[index]] = tonumber(position or '0') end
  for index, group in ipairs(groups) do result[index] = math.max(positions[group], positions[kindOf(keys[index])]) end
  return result
end

local function lastPositions(log, from)
  local result, unknown, places = {}, {}, {}
  for start = from, #ARGV, 1000 do
    local members = {}
    for index = start, math.min(start + 999, #ARGV) do members[#members + 1] = 'c' .. ARGV[index] end
    for _, score in ipairs(redis.call('ZMSCORE', lastOf(log.epoch), unpack(members))) do
      result[#result + 1] = tonumber(score or '0')
      if not score then
        places[#places + 1] = #result
        unknown[#unknown + 1] = ARGV[from + #result - 1]
      end
    end
  end
  for index, position in ipairs(forgottenOf(log, unknown)) do result[places[index]] = position end
  return result
end
`;

/**
 * Functions of presence. Its keys, without the prefix:
 *
 * - `processes`: a sorted set of processes by the time until which each counts as alive.
 * - `process:<process>`: a hash with the number of connections of each client id, and of each client id with its subject. The field with the
 *   empty name holds the milliseconds for which these client ids linger after the process has died.
 * - `lingering` and `barred`: sorted sets of client ids by the time until which each lingers or is barred.
 * - `commands`: a stream of commands to other processes. `stamp`: the last stamp that was given.
 *
 * `nextStamp` returns a number that grows with each connection that enters and each command that is sent, even if keys were lost. `sendCommand`
 * sends a command to all processes. A process whose feed is lost asks for it later.
 *
 * `list` lists a client id in one of the two sets until a time, unless it is listed for longer. `tidy` removes some whose time is over, and lets
 * the set expire with its last one.
 *
 * `removeDead` removes dead processes, and lets their client ids linger from the end of the lease on. One call removes a bounded number of names,
 * at random, because a scan from the beginning would find nothing where everything was removed.
 */
const PRESENCE = `
local processes, lingering, barred = base .. ':processes', base .. ':lingering', base .. ':barred'
local function hashOf(process) return base .. ':process:' .. process end
local function lingerOf(process) return tonumber(redis.call('HGET', hashOf(process), '') or '0') end
local KEPT = 3600000

local function markAlive(process, time, lease, linger)
  redis.call('ZADD', processes, num(time + lease), process)
  redis.call('HSET', hashOf(process), '', num(linger))
  redis.call('PEXPIRE', processes, num(KEPT + lease + linger))
  redis.call('PEXPIRE', hashOf(process), num(KEPT + lease + linger))
end

local function nextStamp()
  local t = redis.call('TIME')
  local least = tonumber(redis.call('GET', base .. ':stamp') or '0') + 1
  local number = num(math.max(tonumber(t[1]) * 1000000 + tonumber(t[2]), least))
  redis.call('SET', base .. ':stamp', number, 'PX', 60000)
  return number
end

local function sendCommand(channel, text)
  local id = nextStamp()
  redis.call('XADD', base .. ':commands', 'MAXLEN', '~', 1000, id .. '-0', 'o', text)
  redis.call('PEXPIRE', base .. ':commands', 3600000)
  redis.call('PUBLISH', channel .. ':inbox', text .. '\\n' .. id)
end

local function tidy(set, time)
  local over = redis.call('ZRANGE', set, '-inf', num(time), 'BYSCORE', 'LIMIT', 0, 100)
  if #over > 0 then redis.call('ZREM', set, unpack(over)) end
  local last = redis.call('ZRANGE', set, -1, -1, 'WITHSCORES')[2]
  if last then redis.call('PEXPIRE', set, num(math.max(1, tonumber(last) - time) + 1000)) end
end

local function list(set, name, till) redis.call('ZADD', set, 'GT', num(till), name) end

local function isListed(set, name, time)
  local till = redis.call('ZSCORE', set, name)
  return till and tonumber(till) > time
end

local function isPresent(clientId, time)
  if isListed(lingering, clientId, time) then return true end
  local all = redis.call('ZRANGE', processes, 0, -1, 'WITHSCORES')
  for index = 1, #all, 2 do
    if redis.call('HEXISTS', hashOf(all[index]), clientId) == 1 then
      local till = tonumber(all[index + 1])
      if till > time or till + lingerOf(all[index]) > time then return true end
    end
  end
  return false
end

local function removeDead(time)
  for _, process in ipairs(redis.call('ZRANGE', processes, '-inf', num(time), 'BYSCORE', 'LIMIT', 0, 2)) do
    local linger = lingerOf(process)
    local till = tonumber(redis.call('ZSCORE', processes, process)) + linger
    local names = redis.call('HRANDFIELD', hashOf(process), 500)
    for _, name in ipairs(names) do
      if name ~= '' and till > time and not string.find(name, '\\n', 1, true) then list(lingering, name, till) end
    end
    if #names > 0 then
      redis.call('HDEL', hashOf(process), unpack(names))
      redis.call('HSET', hashOf(process), '', num(linger))
    end
    if redis.call('HLEN', hashOf(process)) <= 1 then
      redis.call('DEL', hashOf(process))
      redis.call('ZREM', processes, process)
    end
  end
  tidy(lingering, time)
end
`;

/** `refusalOf` returns the error for the first of some calls that the user may not make in a script. */
export const PERMISSIONS = `
local function refusalOf(calls)
  for _, call in ipairs(calls) do
    if not redis.acl_check_cmd(unpack(call)) then
      return redis.error_reply('NOPERM this user may not call ' .. call[1] .. ' in a script: allow it with ACL SETUSER')
    end
  end
end
`;

/** Joins parts to one script, without comments and indentation, because every process sends the scripts to Redis. */
const script = (...parts: readonly string[]): string =>
  parts
    .join("")
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("--"))
    .join("\n");

/** @param parts what the script needs besides the functions of the log, and its body. */
export const logScript = (...parts: readonly string[]): string => script(COMMON, LOG, ...parts);
/** @param parts what the script needs besides {@link COMMON}, and its body. */
export const plainScript = (...parts: readonly string[]): string => script(COMMON, ...parts);
export const presenceScript = (...parts: readonly string[]): string => script(COMMON, PRESENCE, ...parts);
export const fullScript = (...parts: readonly string[]): string => script(COMMON, LOG, PRESENCE, ...parts);
