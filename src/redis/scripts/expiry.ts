// The part of the scripts that drops what has expired of channels that have ages of their own.

/**
 * Functions of expiry, for scripts that have those of `accounts.ts`.
 *
 * `sweep` drops expired events in the order of their positions. Where channels have ages of their own, an event that is kept for long hides those
 * behind it. So the sorted set `expiry` has the channels, each with its age, by when its oldest event will be older than that.
 *
 * `olderThan` returns a function for `dropOldest`. `expire` drops expired events of a number of channels whose time has come, and returns
 * whether none is left.
 */
export const EXPIRY = `
local function olderThan(age)
  return function(header)
    if not header then return true end
    local _, at = headerOf(header)
    return now - at > age
  end
end

local function expire(most)
  local queue, data = keyOf(log.epoch, 'expiry'), keyOf(log.epoch, 'data')
  local due = redis.call('ZRANGE', queue, '-inf', '(' .. num(now), 'BYSCORE', 'LIMIT', 0, num(most + 1))
  for place, name in ipairs(due) do
    if left <= 0 or place > most then return false end
    local age, key = string.match(name, '^(%d+) (.*)$')
    local record, oldest = known[key] or redis.call('HGET', data, 'c' .. key), nil
    if record then
      local channel = known[key] or parseChannel(key, record)
      skipSwept(channel)
      dropOldest(channel, olderThan(tonumber(age)))
      save({channel})
      oldest = channel.gone < channel.last and redis.call('ZRANGE', indexOf(log.epoch, key), 0, 0)[1]
    end
    if oldest then
      local _, at = headerOf(oldest)
      redis.call('ZADD', queue, num(at + tonumber(age)), name)
    else redis.call('ZREM', queue, name) end
    left = left - 10
  end
  return left > 0
end
`;
