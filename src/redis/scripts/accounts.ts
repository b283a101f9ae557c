// The part of the scripts that bounds the log: what each owner has, who has the most, and what leaves first.

/**
 * Functions of owners and bounds. Their keys, without the prefix and the epoch:
 *
 * - `data`: a hash. `e` and a position: the event, see `lua.ts`. `p` and a position: its charge, which has the bytes of the event on the wire, the
 *   time, the longest age of its channels if it is not the engine's, and each owner with the number of its channels that retain the event. `c` and a key: the record of a channel, which has its last
 *   position, its owner, the events and bytes that it ever had, the position up to which its headers were removed, the events and bytes up to
 *   there, its place by size (`-` if nothing is left), and an earlier or the same last position.
 * - `order`: a sorted set in the order of its names, of two for each channel: `q`, the owner, that earlier position and the key; and `s`, the owner,
 *   the place and the key. A place is the size class, a binary logarithm, and then how long ago the channel got there. So one look finds the
 *   largest channel of an owner, and mostly one the quietest: the earlier position is at most `QUIET` behind, and is set right when it is found.
 * - `bytes` and `records`: sorted sets of owners, by bytes and by channels.
 *
 * An owner is a digest of its name. It pays for each event once, and `COST` for each of its channels that retains it. The log has each event
 * once, and as many times `COST`. A channel that retains nothing belongs to the owner of its next event.
 *
 * `left` is how many references to events a script may still drop, with about 2 microseconds for each. What is left over is for later scripts.
 *
 * `sweep` drops events that have expired, oldest first, and returns whether none is left. `first` is the charge after the swept position. It follows
 * the charges, so it costs the same however many channels have an event. The headers that it leaves behind are removed by `skipSwept` when their
 * channel is used, and by Redis when it is not. Scripts read nothing up to the swept position.
 * `largestOwners` returns a function that returns the owner that has the most at the time, and the amount of the second one; the caller keeps the
 * owner's own amount. It looks at some owners at a time.
 * `dropOldest` drops the oldest events of a channel as long as `isOver` holds for the next one; it is first called without one.
 * `evict` drops the oldest events of the largest channel of the owner that has the most bytes, until the log is within its bound.
 * `forget` removes the quietest channel of the owner that has the most channels.
 * So an owner with at most an equal part of a bound loses nothing because of others. That holds only if nothing is charged that has expired, so
 * `evict` waits until `sweep` has found the last of it.
 *
 * `save` and all others collect what they change, and `flush` writes it. It must be the last call.
 */
export const ACCOUNTS = `
local COST, GROUPS, QUIET, OWNERS = 256, 1000, 1000, 16
local log, now, left, removable = nil, 0, 0, 1000
local known, charges, changed, writes, deltas, recordDeltas, forgotten = {}, {}, {}, {}, {}, {}, {}

local function ownerOf(name) return string.sub(redis.sha1hex(name), 1, 20) end
local function add(totals, owner, by) totals[owner] = (totals[owner] or 0) + by end

local function parseCharge(text)
  local size, at, age, owners = string.match(text, '^(%d+) (%d+):?(%-?%d*)(.*)$')
  local charge = {size = tonumber(size), time = tonumber(at), age = tonumber(age), references = 0, owners = {}}
  for owner, count in string.gmatch(owners, ' (%x+) (%d+)') do
    charge.owners[owner] = tonumber(count)
    charge.references = charge.references + charge.owners[owner]
  end
  return charge
end

local function loadCharges(seqs)
  local missing, fields = {}, {}
  for _, seq in ipairs(seqs) do
    if charges[seq] == nil then
      missing[#missing + 1] = seq
      fields[#fields + 1] = 'p' .. num(seq)
    end
  end
  for index, text in ipairs(fetch(keyOf(log.epoch, 'data'), fields)) do
    charges[missing[index]] = text and parseCharge(text)
    left = left - (text and #text or 0) / 100
  end
end

local function retain(seq, charge, owner)
  local count = charge.owners[owner] or 0
  charge.owners[owner] = count + 1
  charge.references = charge.references + 1
  add(deltas, owner, count > 0 and COST or COST + charge.size)
  log.bytes = log.bytes + (charge.references > 1 and COST or COST + charge.size)
  changed[seq] = true
end

local function release(seq, owner)
  local charge = charges[seq]
  local count = charge and charge.owners[owner]
  if not count then return end
  charge.owners[owner] = count > 1 and count - 1 or nil
  charge.references = charge.references - 1
  add(deltas, owner, -(count > 1 and COST or COST + charge.size))
  log.bytes = log.bytes - (charge.references > 0 and COST or COST + charge.size)
  changed[seq] = true
end

local function addAll(key, totals)
  for owner, by in pairs(totals) do
    if by ~= 0 and tonumber(redis.call('ZINCRBY', key, num(by), owner)) <= 0 then redis.call('ZREM', key, owner) end
  end
end

local function saveForgotten()
  local groups, fields, values, key = {}, {}, {}, base .. ':log'
  for group in pairs(forgotten) do
    groups[#groups + 1] = group
    fields[#fields + 1] = 'f:' .. group
  end
  if #groups == 0 then return end
  for index, before in ipairs(fetch(key, fields)) do
    values[#values + 1] = fields[index]
    values[#values + 1] = num(math.max(tonumber(before or '0'), forgotten[groups[index]]))
  end
  callAll('HSET', key, values)
  forgotten = {}
  if redis.call('HLEN', key) <= GROUPS then return end
  local old = {}
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if string.match(field, '^f:#.') then old[#old + 1] = field end
  end
  callAll('HDEL', key, old)
  redis.call('HSET', key, 'f:#', num(log.forgottenThrough))
end

local function flush()
  local gone = {}
  for seq in pairs(changed) do
    local charge = charges[seq]
    if charge.references == 0 then
      gone[#gone + 1] = 'p' .. num(seq)
      gone[#gone + 1] = 'e' .. num(seq)
      charges[seq] = false
    else
      local parts = {string.format('%.0f %.0f', charge.size, charge.time) .. (charge.age and ':' .. num(charge.age) or '')}
      for owner, count in pairs(charge.owners) do parts[#parts + 1] = owner .. ' ' .. count end
      writes[#writes + 1] = 'p' .. num(seq)
      writes[#writes + 1] = table.concat(parts, ' ')
    end
  end
  callAll('HSET', keyOf(log.epoch, 'data'), writes)
  callAll('HDEL', keyOf(log.epoch, 'data'), gone)
  addAll(keyOf(log.epoch, 'bytes'), deltas)
  addAll(keyOf(log.epoch, 'records'), recordDeltas)
  changed, writes, deltas, recordDeltas = {}, {}, {}, {}
  saveForgotten()
  redis.call(
    'HSET', base .. ':log', 'bytes', num(log.bytes), 'swept', num(log.swept), 'forgottenThrough', num(log.forgottenThrough)
  )
end

local function sweep(engineAge, first)
  local texts = {first}
  while log.swept < log.head do
    if left <= 0 then return false end
    local from, gone, isDone = log.swept, {}, false
    for index, text in ipairs(texts) do
      if left <= 0 then break end
      local charge = text and parseCharge(text)
      local age = charge and charge.age or engineAge
      if charge and (age < 0 or now - charge.time <= age) then
        isDone = true
        break
      end
      log.swept = from + index
      if charge then
        gone[#gone + 1] = 'p' .. num(log.swept)
        gone[#gone + 1] = 'e' .. num(log.swept)
        log.bytes = log.bytes - charge.size - COST * charge.references
        for owner, count in pairs(charge.owners) do
          add(deltas, owner, -(charge.size + COST * count))
          left = left - 1
        end
      end
    end
    callAll('HDEL', keyOf(log.epoch, 'data'), gone)
    if isDone then return true end
    left = left - 4
    local fields = {}
    for index = 1, math.min(64, log.head - log.swept) do fields[index] = 'p' .. num(log.swept + index) end
    texts = fetch(keyOf(log.epoch, 'data'), fields)
  end
  return true
end

local function parseChannel(key, text)
  local last, owner, count, total, gone, goneCount, goneTotal, place, quiet =
    string.match(text, '^(%d+) (%x+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (%d+)$')
  quiet = tonumber(quiet)
  return {
    key = key, last = tonumber(last), owner = owner, count = tonumber(count), total = tonumber(total), gone = tonumber(gone),
    goneCount = tonumber(goneCount), goneTotal = tonumber(goneTotal), place = place, quiet = quiet, named = {owner, quiet, place},
  }
end

local function addNames(list, channel, owner, quiet, place, score)
  list[#list + 1] = score
  list[#list + 1] = 'q' .. owner .. string.format('%016.0f', quiet) .. channel.key
  if place == '-' then return end
  list[#list + 1] = score
  list[#list + 1] = 's' .. owner .. place .. channel.key
end

local function isEmpty(channel) return math.max(channel.gone, log.swept) >= channel.last end

local function save(channels)
  local old, new = {}, {}
  for _, channel in ipairs(channels) do
    local _, exponent = math.frexp((channel.count - channel.goneCount) * COST + channel.total - channel.goneTotal)
    local class = string.format('%02.0f', exponent - 1)
    if channel.gone >= channel.last then channel.place = '-'
    elseif string.sub(channel.place or '-', 1, 2) ~= class then channel.place = class .. string.format('%016.0f', 9e15 - channel.last) end
    if channel.last >= (channel.quiet or -QUIET) + QUIET then channel.quiet = channel.last end
    known[channel.key] = channel
    local owner, quiet, place = unpack(channel.named or {})
    if owner ~= channel.owner or quiet ~= channel.quiet or place ~= channel.place then
      if owner then addNames(old, channel, owner, quiet, place) end
      addNames(new, channel, channel.owner, channel.quiet, channel.place, '0')
      channel.named = {channel.owner, channel.quiet, channel.place}
    end
    writes[#writes + 1] = 'c' .. channel.key
    writes[#writes + 1] = string.format(
      '%.0f %s %.0f %.0f %.0f %.0f %.0f %s %.0f', channel.last, channel.owner, channel.count, channel.total, channel.gone, channel.goneCount,
      channel.goneTotal, channel.place, channel.quiet
    )
  end
  callAll('ZREM', keyOf(log.epoch, 'order'), old)
  callAll('ZADD', keyOf(log.epoch, 'order'), new)
end

local function removeAll(channel)
  channel.gone, channel.goneCount, channel.goneTotal = channel.last, channel.count, channel.total
end

local function skipSwept(channel)
  if channel.gone >= math.min(log.swept, channel.last) then return end
  local index = indexOf(log.epoch, channel.key)
  if log.swept >= channel.last then
    redis.call('UNLINK', index)
    removeAll(channel)
    return
  end
  local count = math.min(removable, redis.call('ZCOUNT', index, '-inf', num(log.swept)))
  if count > 0 then
    removable = removable - count
    redis.call('ZREMRANGEBYRANK', index, 0, num(count - 1))
  end
  local first = redis.call('ZRANGE', index, 0, 0)[1]
  if not first then return removeAll(channel) end
  local previous, _, size, number, total = headerOf(first)
  channel.gone = seqOf(first) > log.swept and log.swept or previous
  channel.goneCount, channel.goneTotal = number - 1, total - size
end

local function dropOldest(channel, isOver)
  local looks = 1
  while channel.gone < channel.last and left > 0 and isOver() do
    local index = indexOf(log.epoch, channel.key)
    local headers, seqs, count = redis.call('ZRANGE', index, 0, looks - 1), {}, 0
    if #headers == 0 then return removeAll(channel) end
    if not isOver(headers[1]) then return end
    for place, header in ipairs(headers) do seqs[place] = seqOf(header) end
    loadCharges(seqs)
    while count < #headers and left > 0 and isOver(headers[count + 1]) do
      count, left = count + 1, left - 1
      release(seqs[count], channel.owner)
      local _, _, _, number, total = headerOf(headers[count])
      channel.gone, channel.goneCount, channel.goneTotal = seqs[count], number, total
    end
    -- A rank of -1 would be the last one.
    if count > 0 then redis.call('ZREMRANGEBYRANK', index, 0, num(count - 1)) end
    looks = math.min(16, looks * 4)
  end
end

local function largestOwners(key)
  local owners, others = {}, 0
  return function()
    local first, second = nil, others
    for _, owner in ipairs(owners) do
      if not first or owner.amount > first.amount then
        if first then second = math.max(second, first.amount) end
        first = owner
      else second = math.max(second, owner.amount) end
    end
    if first and first.amount > 0 and first.amount >= others then return first, second end
    flush()
    local found = redis.call('ZRANGE', key, 0, OWNERS, 'REV', 'WITHSCORES')
    owners, others = {}, tonumber(found[2 * OWNERS + 2] or '0')
    for place = 1, math.min(#found, 2 * OWNERS), 2 do
      if found[place] ~= '' then owners[#owners + 1] = {name = found[place], amount = tonumber(found[place + 1])} end
    end
    return owners[1], owners[2] and owners[2].amount or others
  end
end

local function evict(most)
  local largest, order = largestOwners(keyOf(log.epoch, 'bytes')), keyOf(log.epoch, 'order')
  while log.bytes > most and left > 0 do
    local owner, second = largest()
    local prefix = owner and 's' .. owner.name
    local name = owner and redis.call('ZRANGE', order, '(' .. prefix .. ':', '[' .. prefix, 'BYLEX', 'REV', 'LIMIT', 0, 1)[1]
    if not name then return end
    local key = string.sub(name, 40)
    local channel = known[key] or parseChannel(key, redis.call('HGET', keyOf(log.epoch, 'data'), 'c' .. key))
    local before = deltas[owner.name] or 0
    local function rest() return owner.amount + (deltas[owner.name] or 0) - before end
    skipSwept(channel)
    dropOldest(channel, function() return log.bytes > most and rest() >= second end)
    save({channel})
    owner.amount = rest()
    left = left - 2
  end
end

local function removeRecords(channels)
  local indexes, members, names = {}, {}, {}
  for _, channel in ipairs(channels) do
    local group = groupOf(channel.key)
    known[channel.key] = nil
    indexes[#indexes + 1] = indexOf(log.epoch, channel.key)
    members[#members + 1] = 'c' .. channel.key
    addNames(names, channel, unpack(channel.named))
    add(recordDeltas, channel.owner, -1)
    forgotten[group] = math.max(forgotten[group] or 0, channel.last)
    log.forgottenThrough = math.max(log.forgottenThrough, channel.last)
  end
  if #indexes == 0 then return end
  -- Or a record that is not written yet would come back.
  callAll('HSET', keyOf(log.epoch, 'data'), writes)
  writes = {}
  redis.call('UNLINK', unpack(indexes))
  callAll('ZREM', lastOf(log.epoch), members)
  callAll('HDEL', keyOf(log.epoch, 'data'), members)
  callAll('ZREM', keyOf(log.epoch, 'order'), names)
end

local function forget(most)
  local largest, over = largestOwners(keyOf(log.epoch, 'records')), redis.call('ZCARD', lastOf(log.epoch)) - 1 - most
  while over > 0 and left > 0 do
    local owner, second = largest()
    if not owner then return end
    local count, from = math.max(1, math.min(over, 32, math.ceil(left / 2), owner.amount - second)), 'q' .. owner.name
    local names, members = redis.call('ZRANGE', keyOf(log.epoch, 'order'), '[' .. from, '(' .. from .. ':', 'BYLEX', 'LIMIT', 0, num(count)), {}
    for index, name in ipairs(names) do members[index] = 'c' .. string.sub(name, 38) end
    local channels, seqs, removed, stale = {}, {}, {}, {}
    for index, text in ipairs(fetch(keyOf(log.epoch, 'data'), members)) do
      local key = string.sub(members[index], 2)
      local channel = known[key] or parseChannel(key, text)
      if channel.quiet < channel.last then
        channel.quiet = channel.last
        stale[#stale + 1] = channel
        left = left - 1
      elseif #stale == 0 then
        channels[#channels + 1] = channel
        if not isEmpty(channel) and channel.count - channel.goneCount == 1 then seqs[#seqs + 1] = channel.last end
      end
    end
    loadCharges(seqs)
    for _, channel in ipairs(channels) do
      if not isEmpty(channel) then
        if channel.count - channel.goneCount == 1 then
          release(channel.last, channel.owner)
          left = left - 1
        else
          skipSwept(channel)
          dropOldest(channel, function() return true end)
          if channel.gone < channel.last then
            save({channel})
            break
          end
        end
      end
      left = left - 1
      removed[#removed + 1] = channel
    end
    removeRecords(removed)
    save(stale)
    over, owner.amount = over - #removed, owner.amount - #removed
    if #removed < #channels or #names == 0 then return end
  end
end
`;
