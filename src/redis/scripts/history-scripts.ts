// The Lua scripts that read what is retained. They write nothing.
import { logScript } from "./lua.ts";

/**
 * Keys that one script may look at. The scripts below look at each key two or three times, so this is a part of the budget of a script.
 */
export const KEYS_PER_SCRIPT = 128;

/**
 * Functions of reading. A script counts its work: each look at a channel is 2, and each header that it fetches 1. Over `BUDGET` it ends its page
 * with what it has, at the next event that it would have to fetch. A unit is about 3 microseconds on a slow core.
 *
 * `merge` merges the entries of several sources, each with its first batch. `isFirst` compares positions, and `fetch` returns the next entries of a
 * source, as many as asked for if it has them: few at first, because most of a batch may lie behind the end of the page. The sources are kept in
 * order, so an event costs a search among them and no look at each. It returns `peek`, for the next entry; `advance`, which goes on to the one
 * after it, and returns `false` if that is over the budget; and the sources that are not at their end.
 */
const READING = `
local BUDGET, work = 1000, 0
local function range(index, from, to, count, ...)
  local batch = redis.call('ZRANGE', index, from, to, 'BYSCORE', 'LIMIT', 0, num(count), ...)
  work = work + 2 + #batch
  return batch
end

local function merge(sources, isFirst, fetch)
  local order, isExhausted = {}, false
  local function put(source)
    if source.next > #source.batch then
      if source.isOver then return end
      if work >= BUDGET then
        isExhausted = true
        return
      end
      source.count = math.min(64, math.max(4, 2 * source.count), BUDGET - work)
      source.batch = fetch(source)
      source.next = 1
      if #source.batch == 0 then return end
      source.isOver = #source.batch < source.count or seqOf(source.batch[#source.batch]) == source.newest
    end
    source.seq = seqOf(source.batch[source.next])
    local low, high = 1, #order + 1
    while low < high do
      local middle = math.floor((low + high) / 2)
      if isFirst(order[middle].seq, source.seq) then low = middle + 1 else high = middle end
    end
    table.insert(order, low, source)
  end
  for _, source in ipairs(sources) do put(source) end
  local function peek()
    local source = order[1]
    return source and source.batch[source.next]
  end
  local function advance()
    local seq = order[1].seq
    while order[1] and order[1].seq == seq do
      local source = table.remove(order, 1)
      source.next = source.next + 1
      put(source)
    end
    return not isExhausted
  end
  return peek, advance, order
end
`;

/** Channels that a script may look at less for each age that it has to search for, besides the first one. */
export const KEYS_PER_AGE = 16;

/**
 * Functions that leave out events that are too old. The answer of one channel about old positions holds for the others of the same age too, so they
 * cost one search together.
 *
 * `setAges` is called first, with the ages of the channels, or one for all, how many channels there are, and the position up to which all events
 * have been dropped. It returns for each channel what is known about its age.
 * `youngEvents` returns the first events of a channel after a position that are not too old; `last` is the channel's last position.
 * `lookAtNewest` looks at the newest event of the channels of each age. If it is too old, so are their others.
 */
const AGE = `
local byAge, byPlace, time = {}, {}, millis()
local function setAges(text, count, swept)
  local ages = {}
  for age in string.gmatch(text, '%S+') do ages[#ages + 1] = age end
  for place = 1, count do
    local age = ages[place] or ages[1]
    byAge[age] = byAge[age] or {age = tonumber(age), tooOldThrough = swept, youngFrom = math.huge, newest = place}
    byPlace[place] = byAge[age]
  end
  return byPlace
end

local function isYoung(span, entry)
  local seq = seqOf(entry)
  if span.age < 0 or seq >= span.youngFrom then return true end
  local _, at = headerOf(entry)
  if time - at <= span.age then
    span.youngFrom = seq
    return true
  end
  span.tooOldThrough = math.max(span.tooOldThrough, seq)
  return false
end

local function youngEvents(span, index, after, last, count)
  local from = math.max(after, span.tooOldThrough) + 1
  if last < from then return {} end
  local batch = range(index, num(from), '+inf', count)
  for place = 1, #batch do
    if isYoung(span, batch[place]) then return {unpack(batch, place)} end
  end
  if #batch < count then return {} end
  local low, high = seqOf(batch[#batch]) + 1, math.min(span.youngFrom, last + 1)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local entry = range(index, num(middle), '+inf', 1)[1]
    if entry and not isYoung(span, entry) then low = seqOf(entry) + 1 else high = middle end
  end
  return high > last and {} or range(index, num(high), '+inf', count)
end

local function lookAtNewest(epoch, last, from)
  for place, span in ipairs(byPlace) do
    if last[place] > last[span.newest] then span.newest = place end
  end
  for _, span in pairs(byAge) do
    if span.age >= 0 then
      local entry = range(indexOf(epoch, ARGV[from + span.newest - 1]), num(last[span.newest]), '-inf', 1, 'REV')[1]
      if entry then isYoung(span, entry) end
    end
  end
end
`;

/**
 * Reads a page of events of several channels, in order of position.
 *
 * ARGV: epoch, position, end of the page at most, bytes, retained age of each channel, or one for all, keys.
 *
 * Returns the epoch, the position up to which the page is complete, the last dropped position of each channel (0 if it is not after the
 * position), and then position and event of each event. For another epoch, returns only the current one.
 *
 * Three quarters of the budget are for the first batches, and the rest is for channels that have more. The events themselves are fetched at the end,
 * by one command. An event that is missing counts as dropped.
 */
export const READ: string = logScript(
  READING,
  AGE,
  `
local log = currentLog()
if not log or log.epoch ~= ARGV[1] then return {log and log.epoch or ''} end
local epoch, after, room, from = log.epoch, tonumber(ARGV[2]), tonumber(ARGV[4]), 6
local limit = math.min(log.head, tonumber(ARGV[3]))
local last, dropped, sources = lastPositions(log, from), {}, {}
local spans = setAges(ARGV[5], #last, log.swept)
lookAtNewest(epoch, last, from)
for place = 1, #last do
  local newest, droppedThrough = last[place], 0
  if newest > after then
    local index = indexOf(epoch, ARGV[from + place - 1])
    local share = math.floor((BUDGET * 0.75 - work) / (#last + 1 - place)) - 2
    local count = math.max(1, math.min(64, share))
    local batch = youngEvents(spans[place], index, after, newest, count)
    if batch[1] then
      droppedThrough = headerOf(batch[1])
      if droppedThrough <= after then droppedThrough = 0 end
      sources[#sources + 1] = {
        place = place, index = index, newest = newest, batch = batch, next = 1, count = count, isOver = seqOf(batch[#batch]) == newest,
      }
    else droppedThrough = newest end
  end
  dropped[place] = num(droppedThrough)
end

local peek, advance, order = merge(sources, function(a, b) return a < b end, function(source)
  return range(source.index, num(seqOf(source.batch[#source.batch]) + 1), '+inf', source.count)
end)
local seqs, places, through = {}, {}, limit
local entry = peek()
while entry and seqOf(entry) <= limit do
  local seq, _, _, size = seqOf(entry), headerOf(entry)
  if #seqs > 0 and size > room then
    through = seq - 1
    break
  end
  room = room - size
  seqs[#seqs + 1] = 'e' .. num(seq)
  places[#seqs] = {}
  for _, source in ipairs(order) do
    if source.seq ~= seq then break end
    table.insert(places[#seqs], source.place)
  end
  if not advance() then
    through = seq
    break
  end
  entry = peek()
end
local answer = {epoch, num(through), ''}
for number, event in ipairs(fetch(keyOf(epoch, 'data'), seqs)) do
  local seq = string.sub(seqs[number], 2)
  if event then
    answer[#answer + 1] = seq
    answer[#answer + 1] = event
  else
    for _, place in ipairs(places[number]) do dropped[place] = seq end
  end
end
answer[3] = table.concat(dropped, ' ')
return answer
`,
);

/**
 * Finds the bounds of what is retained of several channels.
 *
 * ARGV: epoch, position, retained age of each channel, or one for all, how many newest events of each channel (0 if nobody asks for them), the position up to which they are
 * counted, keys.
 *
 * Returns the epoch and the head. Then a line for each channel: its last dropped position, its oldest event, its first event after the given
 * position, and the position after which its newest events lie, or 0. For another epoch, returns only the current one and its head.
 */
export const HISTORY_BOUNDS: string = logScript(
  READING,
  AGE,
  `
local log = currentLog()
if not log or log.epoch ~= ARGV[1] then return {log and log.epoch or '', num(log and log.head or 0)} end
local epoch, after, count, limit, from = log.epoch, tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5]), 6
local last, answer = lastPositions(log, from), {epoch, num(log.head)}
local spans = setAges(ARGV[3], #last, log.swept)
lookAtNewest(epoch, last, from)
for place = 1, #last do
  local index, newest = indexOf(epoch, ARGV[from + place - 1]), last[place]
  local first = youngEvents(spans[place], index, 0, newest, 2)[1]
  local line = {num(newest), '-', '-', '0'}
  if first then
    local previous = headerOf(first)
    line[1] = num(previous)
    line[2] = num(seqOf(first))
    local next = first
    if seqOf(first) <= after then next = newest > after and range(index, num(after + 1), '+inf', 1)[1] end
    if next then line[3] = num(seqOf(next)) end
    if count > 0 then
      local rank = -count
      if newest > limit then rank = rank - redis.call('ZCOUNT', index, num(limit + 1), '+inf') end
      local start = redis.call('ZRANGE', index, num(rank), num(rank))[1]
      -- The one at the rank may be one that is too old.
      if start and seqOf(start) > seqOf(first) then line[4] = num(seqOf(start) - 1) end
    end
  end
  answer[#answer + 1] = table.concat(line, ' ')
end
return answer
`,
);

/**
 * Counts the newest events of several channels, newest first, until there are more than a replay may have.
 *
 * ARGV: epoch, position of the first one, most events, most bytes, and then each key with the position after which its events count.
 *
 * Returns the epoch; the position after which everything was counted; `full` if the event at that position is one too many, `end` if there is
 * no event left, `more` otherwise; events and bytes. For another epoch, returns only the current one.
 */
export const COUNT_NEWEST: string = logScript(
  READING,
  `
local log = currentLog()
if not log or log.epoch ~= ARGV[1] then return {log and log.epoch or ''} end
local most, room, sources = tonumber(ARGV[3]), tonumber(ARGV[4]), {}
for place = 5, #ARGV, 2 do
  local index, start = indexOf(log.epoch, ARGV[place]), '(' .. ARGV[place + 1]
  local batch = range(index, ARGV[2], start, 1, 'REV')
  if batch[1] then sources[#sources + 1] = {index = index, start = start, batch = batch, next = 1, count = 1} end
end
local peek, advance = merge(sources, function(a, b) return a > b end, function(source)
  return range(source.index, num(seqOf(source.batch[#source.batch]) - 1), source.start, source.count, 'REV')
end)
local count, bytes, through, state = 0, 0, 0, 'end'
local entry = peek()
while entry do
  local _, _, size = headerOf(entry)
  through, state = seqOf(entry), 'more'
  if (most >= 0 and count >= most) or (room >= 0 and bytes + size > room) then
    state = 'full'
    break
  end
  count, bytes = count + 1, bytes + size
  through = through - 1
  if not advance() then break end
  entry = peek()
  if not entry then state = 'end' end
end
return {log.epoch, num(through), state, num(count), num(bytes)}
`,
);

/**
 * Returns the number of events that several channels had up to a position.
 *
 * ARGV: epoch, position, and then each key with the position up to which all of its events count.
 *
 * Returns the epoch, then a line for each channel: events and bytes up to the later one of the two positions, and the position of the next event
 * or `-`. Events that are no longer retained count too. For another epoch, returns only the current one.
 */
export const COUNT_THROUGH: string = logScript(
  READING,
  `
local log = currentLog()
if not log or log.epoch ~= ARGV[1] then return {log and log.epoch or ''} end
local answer, position = {log.epoch}, tonumber(ARGV[2])
for place = 3, #ARGV, 2 do
  local index, line = indexOf(log.epoch, ARGV[place]), '0 0 -'
  local next = range(index, num(math.max(position, tonumber(ARGV[place + 1])) + 1), '+inf', 1)[1]
  if next then
    local _, _, size, count, bytes = headerOf(next)
    line = table.concat({num(count - 1), num(bytes - size), num(seqOf(next))}, ' ')
  else
    local newest = range(index, '+inf', '-inf', 1, 'REV')[1]
    if newest then
      local _, _, _, count, bytes = headerOf(newest)
      line = num(count) .. ' ' .. num(bytes) .. ' -'
    end
  end
  answer[#answer + 1] = line
end
return answer
`,
);
