// The Lua scripts of runs: sequences of events that end.
import { PERMISSIONS, plainScript } from "./lua.ts";

/**
 * Functions of runs. The keys of a run, without the prefix, with its name (`runName`) in the place of `<run>`:
 *
 * - `run:<run>`: a hash of its `generation`, its `state` (`live`, or how it ended; absent if its lease was over), whether it was asked to `stop`, its
 *   number of `events`, the milliseconds of `lease` and `retain`, the text for its `readers` if it has one, and the last generations that had its
 *   id before (`past`).
 * - `run-events:<run>`: a list of its events, without ids. Absent while there is none.
 *
 * Both keys expire, and that is the only clock of a run: while it is live, in `lease` + `retain` milliseconds, and `retain` milliseconds after its
 * end. So its lease is over when no more than `retain` is left. A renewal changes only the time to live, which Redis does even when it is full, and
 * so is the end of a lost run: a field is deleted. The list never expires before the hash.
 *
 * `findRun` returns a run, unless a part of it is missing: then it is unknown as a whole. `lose` ends a run whose lease is over.
 *
 * A client library may send a command after its caller has given it up, even twice. Of these scripts, `RUN_APPEND`, `RUN_RENEW` and `RUN_READ` name
 * a generation and a number of events, or change nothing but a lease that is over, so they do no harm at any time. `RUN_START` and `RUN_STOP` would
 * do harm to a later run with the same id. So they are counted like appends of the log: one that was executed is not executed again, and none is
 * once newer commands can be given. `lateness` finds those, and `count` is their first write.
 */
const RUNS = `
local function announce(run, isStop) redis.call('PUBLISH', ARGV[1] .. ':run:' .. run.name, isStop and 'stop' or '') end

local function keep(run, ms)
  ms = num(math.max(1, ms))
  redis.call('PEXPIRE', run.hash, ms)
  redis.call('PEXPIRE', run.list, ms)
end

local function findRun(name)
  local run = {name = name, hash = base .. ':run:' .. name, list = base .. ':run-events:' .. name}
  local fields = {'generation', 'state', 'events', 'lease', 'retain', 'readers', 'past', 'stop'}
  local generation, state, events, lease, retain, readers, past, stop = unpack(redis.call('HMGET', run.hash, unpack(fields)))
  if not generation or redis.call('LLEN', run.list) ~= tonumber(events) then return nil, run end
  run.generation, run.state, run.events, run.readers, run.past = generation, state or 'lost', tonumber(events), readers, past or ''
  run.lease, run.retain, run.isLive, run.isStopping = tonumber(lease), tonumber(retain), state == 'live', stop == '1'
  run.left = redis.call('PTTL', run.hash) - run.retain
  run.isOver = run.isLive and run.left <= 0
  return run
end

local function lose(run)
  redis.call('HDEL', run.hash, 'state')
  keep(run, run.retain)
  announce(run)
  run.state, run.isLive = 'lost', false
end

local function lateness(counter, number)
  local done = redis.call('GET', base .. ':appends:' .. counter)
  if not done then return 'no-counter' end
  if tonumber(number) <= tonumber(string.match(done, '^%d+')) then return 'stale' end
end
local function count(counter, number) redis.call('SET', base .. ':appends:' .. counter, number, 'PX', 86400000) end
`;

const runScript = (...parts: readonly string[]): string => plainScript(RUNS, ...parts);

/**
 * Begins a run. A generation that has had this id before does not begin again, however late its start is repeated. A repeated start renews the
 * lease: the answer to the first one may have been lost a while ago.
 *
 * ARGV: channel prefix, name, name of the append counter, number of the command, generation, lease, retain, `1` if there is a text for its readers,
 * and this text.
 *
 * Returns 1, or 0 if a live run of another generation has this id; or `no-counter` or `stale`.
 */
export const RUN_START: string = runScript(
  PERMISSIONS,
  `
local late = lateness(ARGV[3], ARGV[4])
if late then return late end
local refusal = refusalOf({
  {'LLEN', base .. ':run-events:'}, {'LRANGE', base .. ':run-events:', '0', '0'}, {'RPUSH', base .. ':run-events:', ''},
  {'PTTL', base .. ':run:'}, {'PUBLISH', ARGV[1] .. ':run:', ''},
})
if refusal then return refusal end
local run, missing = findRun(ARGV[2])
local generation, past = ARGV[5], ''
if run then
  if run.generation == generation then
    if run.isOver then lose(run) elseif run.isLive then keep(run, run.lease + run.retain) end
    return 1
  end
  if run.isLive and not run.isOver then return 0 end
  past = run.generation .. ' ' .. run.past
  if string.find(' ' .. past, ' ' .. generation .. ' ', 1, true) then return 1 end
end
run = run or missing
count(ARGV[3], ARGV[4])
redis.call('UNLINK', run.hash, run.list)
redis.call('HSET', run.hash, 'generation', generation, 'state', 'live', 'events', '0', 'lease', ARGV[6], 'retain', ARGV[7])
if ARGV[8] == '1' then redis.call('HSET', run.hash, 'readers', ARGV[9]) end
if past ~= '' then redis.call('HSET', run.hash, 'past', string.sub(past, 1, 8 * (#generation + 1))) end
keep(run, tonumber(ARGV[6]) + tonumber(ARGV[7]))
announce(run)
return 1
`,
);

/**
 * Appends events to a run, and ends it if an end is given. ARGV: channel prefix, name, generation, number of the events before, end or empty, texts.
 *
 * Returns 1, or 0 if no live run has this generation. A run that has fewer events than its producer knows has lost some, and takes no more.
 */
export const RUN_APPEND: string = runScript(`
local run, after, wanted = findRun(ARGV[2]), tonumber(ARGV[4]), ARGV[5]
local total = after + #ARGV - 5
if not run or run.generation ~= ARGV[3] then return 0 end
if not run.isLive then return run.state == wanted and run.events == total and 1 or 0 end
if after > run.events or (wanted ~= '' and total < run.events) then return 0 end
local fresh, changes = {}, {}
for index = 6 + run.events - after, #ARGV do fresh[#fresh + 1] = ARGV[index] end
if #fresh > 0 then changes = {'events', num(total)} end
if wanted ~= '' then
  changes[#changes + 1] = 'state'
  changes[#changes + 1] = wanted
end
callAll('RPUSH', run.list, fresh)
if #changes > 0 then redis.call('HSET', run.hash, unpack(changes)) end
keep(run, wanted == '' and run.lease + run.retain or run.retain)
if #changes > 0 then announce(run) end
return 1
`);

/** Renews leases. ARGV: channel prefix, then name and generation of each run. Returns for each `live`, `stopping` or `over`. */
export const RUN_RENEW: string = runScript(`
local answers = {}
for index = 2, #ARGV, 2 do
  local run, answer = findRun(ARGV[index]), 'over'
  if run and run.generation == ARGV[index + 1] and run.isLive then
    keep(run, run.lease + run.retain)
    answer = run.isStopping and 'stopping' or 'live'
  end
  answers[#answers + 1] = answer
end
return answers
`);

/**
 * Reads a part of a run. ARGV: channel prefix, name, number of the event before, bytes.
 *
 * Returns 0 for an unknown run; or its generation, its number of events, its state, whether it was asked to stop, the milliseconds of its lease that are
 * left, whether it has a text for its readers, this text, the number of events that follow, and their texts as one. Each event takes some bytes more
 * than its text, for its id.
 */
export const RUN_READ: string = runScript(`
local run, next, bytes = findRun(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if not run then return 0 end
if run.isOver then lose(run) end
local texts, size, step = {}, 0, 1
while step > 0 and next < run.events do
  for _, text in ipairs(redis.call('LRANGE', run.list, num(next), num(next + step - 1))) do
    local cost = #text + 24
    if #texts > 0 and size + cost > bytes then
      step = 0
      break
    end
    texts[#texts + 1], size, next = text, size + cost, next + 1
  end
  -- As many as may fit, by those before.
  step = math.min(2 * step, 500, math.ceil((bytes - size) * #texts / size))
end
local isStopping, hasReaders = run.isStopping and 1 or 0, run.readers and 1 or 0
return {run.generation, run.events, run.state, isStopping, run.left, hasReaders, run.readers or '', #texts, table.concat(texts)}
`);

/**
 * Asks the producer of a live run to stop. ARGV: channel prefix, name, name of the append counter, number of the command.
 *
 * Returns 1, or 0 if there is no live run; or `no-counter` or `stale`.
 */
export const RUN_STOP: string = runScript(`
local late = lateness(ARGV[3], ARGV[4])
if late then return late end
local run = findRun(ARGV[2])
if run and run.isOver then lose(run) end
if not run or not run.isLive then return 0 end
count(ARGV[3], ARGV[4])
redis.call('HSET', run.hash, 'stop', '1')
announce(run, true)
return 1
`);
