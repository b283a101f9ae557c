/**
 * What every script begins with. A script touches nothing before it has refused all that it refuses, and its first write is one that Redis
 * refuses for want of memory, of disk or of replicas; after a script's first write Redis refuses none. So each script is all or nothing.
 *
 * Commands, for a line of an ACL. Of the client: PING, SCRIPT LOAD, EVALSHA, WAIT (with `waitReplicas`), SUBSCRIBE and UNSUBSCRIBE.
 * In scripts: DEL, GET, HDEL, HEXISTS, HGET, HINCRBY, HLEN, HMGET, HSCAN, HSET, INFO, PEXPIRE, PUBLISH, RENAME, SADD, SET, SRANDMEMBER, SREM,
 * TIME, UNLINK, XADD, XDEL, XLEN, XRANGE, XREVRANGE, ZADD, ZCARD, ZMSCORE, ZPOPMIN, ZRANGE, ZREM, ZREMRANGEBYSCORE, ZSCORE.
 * Keys and channels: `{prefix}` followed by anything.
 */
const COMMON = `
local base = KEYS[1]
local function num(n) return string.format('%.0f', n) end
local function millis()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
`;

/**
 * Keys: `{p}:log` is a hash of the epoch, of the server's run that it is of, and of how far channels were forgotten. `{p}:<epoch>:last` is a
 * sorted set of the head and of the last position of each channel ("c" and its key). `{p}:<epoch>:s:<key>` is a channel's stream: k the keys of
 * the event, t its text, p the position before it in this channel, a when it was appended, c the bytes that this channel had up to it.
 */
const LOG = `
local function lastOf(epoch) return base .. ':' .. epoch .. ':last' end
local function streamOf(epoch, key) return base .. ':' .. epoch .. ':s:' .. key end

-- Which server this is, which history its data are of, and whether it has them from another server.
local function run()
  local info = redis.call('INFO', 'server', 'replication')
  local isTaken = string.match(info, '\\nmaster_replid2:0+\\r') == nil
  return string.match(info, '\\nrun_id:(%x+)'), string.match(info, '\\nmaster_replid:(%x+)'), isTaken
end

-- The log, unless it cannot be proved that this is all of it. The head has the highest score, and among equals the highest name.
local function current()
  local log = redis.call('HMGET', base .. ':log', 'epoch', 'run', 'forgotten', 'history')
  local server, history, isTaken = run()
  if not (log[1] and log[3]) or log[2] ~= server then return nil end
  -- Its first replica gives a server a new history, and so does an hour without one; its data stay what they were.
  if log[4] ~= history and isTaken then return nil end
  local top = redis.call('ZRANGE', lastOf(log[1]), -1, -1, 'WITHSCORES')
  if top[1] ~= 'head' then return nil end
  return log[1], tonumber(top[2]), tonumber(log[3])
end

local function live(epoch, ttl)
  if ttl < 0 then return end
  redis.call('PEXPIRE', base .. ':log', ttl)
  redis.call('PEXPIRE', lastOf(epoch), ttl)
end

-- The name depends on the server and the time, so that a command which is sent twice does not begin the same epoch twice.
local function begin(candidate, ttl)
  local server, history = run()
  local time = redis.call('TIME')
  local old = redis.call('HGET', base .. ':log', 'epoch')
  local epoch = string.sub(redis.sha1hex(candidate .. server .. time[1] .. '.' .. time[2]), 1, 16)
  redis.call('ZADD', lastOf(epoch), 0, 'head')
  if old then redis.call('SADD', base .. ':old', old) end
  redis.call('HSET', base .. ':log', 'epoch', epoch, 'run', server, 'history', history, 'forgotten', '0')
  live(epoch, ttl)
  return epoch, 0, 0
end

local function proved(candidate, seenEpoch, seenSeq, ttl)
  local epoch, head, forgotten = current()
  if not epoch or (epoch == seenEpoch and head < tonumber(seenSeq)) then return begin(candidate, ttl) end
  return epoch, head, forgotten
end

-- Bytes of an event on the wire: "id: <epoch>-<seq>" and a line feed, then its text.
local function sizeOf(epoch, entry)
  return #entry[2][4] + #epoch + #entry[1] + 4
end

-- Drops from a channel what retention does not keep, so many events at the most. A bound below 0 is none; total is what the channel had so far, if known.
local function trim(epoch, key, time, events, bytes, age, most, total)
  local stream = streamOf(epoch, key)
  local length = redis.call('XLEN', stream)
  if length == 0 then return end
  if bytes >= 0 and not total then total = tonumber(redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1][2][10]) end
  for _ = 1, most do
    local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    if not first then return end
    local fields = first[2]
    if not (events >= 0 and length > events)
      and not (bytes >= 0 and total - tonumber(fields[10]) + sizeOf(epoch, first) > bytes)
      and not (age >= 0 and time - tonumber(fields[8]) > age) then return end
    redis.call('XDEL', stream, first[1])
    length = length - 1
  end
end

local function seqOf(entry) return tonumber(string.match(entry[1], '^%d+')) end

-- The last position of each channel, from ARGV[from] on; without a record as far as was forgotten.
local function lasts(epoch, forgotten, from)
  local result = {}
  for start = from, #ARGV, 1000 do
    local members = {}
    for index = start, math.min(start + 999, #ARGV) do members[#members + 1] = 'c' .. ARGV[index] end
    for _, score in ipairs(redis.call('ZMSCORE', lastOf(epoch), unpack(members))) do
      result[#result + 1] = score and tonumber(score) or forgotten
    end
  end
  return result
end
`;

/** Keys: `{p}:procs` processes by the time that they count as alive until, `{p}:at:<process>` a hash of what a process has, and under "" how long that lingers. */
const PRESENCE = `
local procs, lingering, barred = base .. ':procs', base .. ':lingering', base .. ':barred'
local function at(process) return base .. ':at:' .. process end
local function lingerOf(process) return tonumber(redis.call('HGET', at(process), '') or '0') end
local KEPT = 3600000

local function alive(process, time, lease, linger)
  redis.call('ZADD', procs, num(time + lease), process)
  redis.call('HSET', at(process), '', num(linger))
  redis.call('PEXPIRE', procs, num(KEPT + lease + linger))
  redis.call('PEXPIRE', at(process), num(KEPT + lease + linger))
end

-- A number that grows with each connection that is entered and each order that is given, whatever was lost.
local function stamp()
  local t = redis.call('TIME')
  local least = tonumber(redis.call('GET', base .. ':stamp') or '0') + 1
  local number = num(math.max(tonumber(t[1]) * 1000000 + tonumber(t[2]), least))
  redis.call('SET', base .. ':stamp', number, 'PX', 60000)
  return number
end

-- Tells all processes; one whose feed is lost asks later for what it was not told.
local function order(channel, text)
  local id = stamp()
  redis.call('XADD', base .. ':orders', 'MAXLEN', '~', 1000, id .. '-0', 'o', text)
  redis.call('PEXPIRE', base .. ':orders', 3600000)
  redis.call('PUBLISH', channel .. ':inbox', text .. '\\n' .. id)
end

-- Remembers a name in one of the two sets until a time, unless it is remembered longer.
local function remember(set, name, till)
  redis.call('ZADD', set, 'GT', num(till), name)
  local time = millis()
  redis.call('ZREMRANGEBYSCORE', set, '-inf', num(time))
  local last = redis.call('ZRANGE', set, -1, -1, 'WITHSCORES')[2]
  if last then redis.call('PEXPIRE', set, num(math.max(1, tonumber(last) - time) + 1000)) end
end

local function isWithin(set, name, time)
  local till = redis.call('ZSCORE', set, name)
  return till and tonumber(till) > time
end

local function present(clientId, time)
  if isWithin(lingering, clientId, time) then return true end
  local all = redis.call('ZRANGE', procs, 0, -1, 'WITHSCORES')
  for index = 1, #all, 2 do
    if redis.call('HEXISTS', at(all[index]), clientId) == 1 then
      local till = tonumber(all[index + 1])
      if till > time or till + lingerOf(all[index]) > time then return true end
    end
  end
  return false
end

-- What processes had that are dead lingers from then on; a bounded number of names at a time.
local function reap(time)
  for _, process in ipairs(redis.call('ZRANGE', procs, '-inf', num(time), 'BYSCORE', 'LIMIT', 0, 4)) do
    local till = tonumber(redis.call('ZSCORE', procs, process)) + lingerOf(process)
    local fields = redis.call('HSCAN', at(process), 0, 'COUNT', 500)[2]
    for index = 1, #fields, 2 do
      local name = fields[index]
      if name ~= '' then
        if till > time and not string.find(name, '\\n', 1, true) then remember(lingering, name, till) end
        redis.call('HDEL', at(process), name)
      end
    end
    if redis.call('HLEN', at(process)) <= 1 then
      redis.call('DEL', at(process))
      redis.call('ZREM', procs, process)
    end
  end
end
`;

/** The whole text of a script. */
const script = (...parts: readonly string[]): string =>
  parts
    .join("")
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("--"))
    .join("\n");

export const ofLog = (body: string): string => script(COMMON, LOG, body);
export const ofPresence = (body: string): string => script(COMMON, PRESENCE, body);
export const ofBoth = (body: string): string => script(COMMON, LOG, PRESENCE, body);
