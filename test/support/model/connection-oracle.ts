// The oracle of a connection. It checks the response, the content of the stream, the heartbeats, and when and why the connection ends. It knows
// when each event was published, and when each chunk was requested and received. Events of one millisecond may have happened in any order.
import type { PublishedEvent } from "../oracle/oracle.ts";
import { type ConnectionAttempt, RETAINED_STARTS, type Registered, rankOfRequest } from "./connection-attempt.ts";
import type { HistorySettings } from "./history.ts";
import type { Instance } from "./instance.ts";
import type { StreamEnd, VirtualSocket } from "./socket.ts";
import { JOINED } from "./stream-oracle.ts";

/** Facts that the oracle needs in addition to the connections. */
export interface OracleFacts {
  readonly settings: HistorySettings;
  readonly published: readonly PublishedEvent[];
  /** Returns the rank of an id among all events that were published. */
  readonly rankOf: (id: string) => number;
  /** The calls of `disconnect` in all processes. */
  readonly disconnects: Instance["disconnects"];
  /** Whether an event is available to its clients as soon as it is appended. Otherwise it is available at an unknown later time. */
  readonly isImmediate: boolean;
  /** Whether the engine also answers at once. */
  readonly isSynchronous: boolean;
  /** Whether published events are all that gives clients something to read. */
  readonly isExact: boolean;
}

/** The shortest time that a response may be on its way before its first chunk is read, in milliseconds. */
const MIN_START_MS = 60_000;
/** The time that a client may take to read its end event where `timeout` is `Infinity`, in milliseconds. */
const MAX_CLOSING_MS = 30_000;
/** The longest time that a command of one process may take to reach another, in milliseconds. */
const MAX_PEER_DELAY_MS = 3_000;

/** A connection that was registered, received its stream, and ended. */
interface CompleteConnection {
  readonly attempt: ConnectionAttempt;
  readonly registered: Registered;
  readonly closed: NonNullable<ConnectionAttempt["closed"]>;
  readonly socket: VirtualSocket;
  readonly ended: StreamEnd;
}

/** Returns the faults in what a process reports of itself after it has closed. */
export function findInstanceFaults(instance: Instance, facts: OracleFacts): string[] {
  const { closing, errors, disconnects, process } = instance;
  const faults = [...errors, ...checkStats(instance)];
  const latest =
    (closing?.at ?? 0) + (closing?.spreadOver ?? 0) + closingTimeout(facts.settings) * (facts.isSynchronous ? 1 : 2);
  if (!closing?.doneAt || closing.doneAt > latest) faults.push(`it closed at ${closing?.doneAt}, due at ${latest}`);
  for (const { at, id, clients, connections } of disconnects)
    if (facts.isImmediate && clients !== connections)
      faults.push(`disconnect at ${at} ended ${clients} of ${id}, not ${connections}`);
  return faults.map((fault) => `process ${process}: ${fault}`);
}

/** Nothing is left open, and the counts match what the connections received. */
function checkStats({ broker, attempts }: Instance): string[] {
  const faults: string[] = [];
  const { clients, ids, blocked, closing, pending, channels, ...stats } = broker.stats();
  const left = { clients, ids, blocked, closing, pending, channels };
  if (Object.values(left).some((count) => count > 0)) faults.push(`after close() it still has ${JSON.stringify(left)}`);
  const reasons = new Map<string, number>();
  for (const { closed } of attempts) if (closed) reasons.set(closed.reason, (reasons.get(closed.reason) ?? 0) + 1);
  if (Object.entries(stats.disconnects).some(([reason, count]) => reasons.get(reason) !== count))
    faults.push(`it counts ${JSON.stringify(stats.disconnects)}, and there were ${JSON.stringify([...reasons])}`);
  // The first chunk is counted when it is enqueued, before anyone requests it.
  const areRead = attempts.every(({ registered, socket }) => !registered || (socket && socket.chunks.length > 0));
  const items = attempts.flatMap(({ socket }) => socket?.chunks.flatMap((chunk) => chunk.items) ?? []);
  const count = (type: string): number => items.filter((item) => item.type === type).length;
  const events = count("event") + count("ephemeral");
  if (areRead && (stats.sent !== events || stats.gaps !== count("gap")))
    faults.push(`it counts ${stats.sent} events and ${stats.gaps} gaps, of ${events} and ${count("gap")}`);
  return faults;
}

/** Returns the faults of the connections of a process. */
export function findConnectionFaults(instance: Instance, facts: OracleFacts): string[] {
  return instance.attempts.flatMap((attempt, index) => {
    const { registered, closed, socket } = attempt;
    const faults = checkStatus(attempt, facts);
    if (registered && !closed) faults.push("onDisconnect was never called");
    else if (registered && closed && socket?.ended)
      faults.push(...checkConnection({ attempt, registered, closed, socket, ended: socket.ended }, facts));
    else if (socket && !socket.ended) faults.push("its stream is still open");
    return faults.map((fault) => `process ${instance.process}, connection ${index}, ${attempt.plan.id}: ${fault}`);
  });
}

const checkConnection = (connection: CompleteConnection, facts: OracleFacts): string[] => [
  ...checkItems(connection, facts),
  ...checkTimeout(connection, facts),
  ...checkReason(connection, facts),
  ...checkEnd(connection, facts),
  ...checkHeartbeat(connection, facts),
];

/** The status of the response fits. */
function checkStatus(attempt: ConnectionAttempt, { settings, disconnects, isImmediate }: OracleFacts): string[] {
  const { status, registered, instance, calledAt, answeredAt, leftAt, plan } = attempt;
  if (status === undefined) return ["it was never answered"];
  // Another process starts to count when the command reaches it.
  const delay = isImmediate ? 0 : MAX_PEER_DELAY_MS;
  const isBarred = disconnects.some(
    (call) => call.id === plan.id && call.at <= answeredAt && call.at + call.barFor + delay > calledAt,
  );
  if (status === 204 && !isBarred) return ["it is answered 204, and its id is not barred"];
  const own = instance.disconnects.filter((call) => call.id === plan.id);
  if (registered && own.some((call) => call.at < registered.at && call.at + call.barFor > registered.at))
    return ["its id is barred, and it was registered"];
  const others = instance.attempts.filter((other) => other !== attempt && other.plan.id === plan.id);
  const isTaken = others.some((other) => mayBeOpenAt(other, calledAt) || mayBeOpenAt(other, answeredAt));
  if (status === 409 && !(settings.duplicateIds === "reject" && isTaken)) return ["it is refused as a duplicate"];
  if (registered && settings.duplicateIds !== "allow" && others.some((other) => isOpenAt(other, registered.at)))
    return ["another connection has its id"];
  const isSentBack = status === 503;
  if (isImmediate && isSentBack && leftAt === undefined && !instance.closing)
    return ["it is asked to reconnect later, for no reason"];
  return [200, 204, 409, 503].includes(status) || leftAt !== undefined ? [] : [`it is answered ${status}`];
}

const mayBeOpenAt = ({ registered, closed }: ConnectionAttempt, at: number): boolean =>
  registered !== undefined && registered.at <= at && (closed?.at ?? Infinity) >= at;
const isOpenAt = ({ registered, closed }: ConnectionAttempt, at: number): boolean =>
  registered !== undefined && registered.at < at && (closed?.at ?? Infinity) > at;

/** Positions only grow, each event comes once, and `fanwire-ready` has the right position. */
function checkItems(
  { attempt, registered, socket }: CompleteConnection,
  { rankOf, isImmediate }: OracleFacts,
): string[] {
  const faults: string[] = [];
  const items = socket.chunks.flatMap((chunk) => chunk.items);
  const [first] = items;
  if (first && first.type !== "ready") faults.push("its stream does not begin with fanwire-ready");
  if (first?.id !== undefined && attempt.isResumed && first.id !== attempt.lastEventId)
    faults.push(`it resumes after ${attempt.lastEventId}, and starts at ${first.id}`);
  if (first?.id !== undefined && attempt.lastEventId === undefined && attempt.plan.start === "live") {
    const start = rankOf(first.id);
    if (isImmediate ? start !== registered.head : start > registered.head)
      faults.push(`it starts live at ${start}, while the newest event is ${registered.head}`);
  }
  let last = 0;
  let lastEvent = 0;
  for (const { type, id } of items) {
    const rank = id === undefined ? last : rankOf(id);
    if (rank < last || (type === "event" && rank <= lastEvent)) faults.push(`it receives ${rank} after ${last}`);
    if (type === "event") lastEvent = rank;
    last = rank;
  }
  const end = items.findIndex(({ type }) => type === "end");
  if (end >= 0 && end < items.length - 1) faults.push("it receives something after fanwire-end");
  return faults;
}

/** A time in which the client requested no chunk: after it received one, or before the first. */
interface BlockedTime {
  readonly from: number;
  readonly to: number;
  /** When there may have been something to receive, and when there certainly was. */
  readonly since: number;
  readonly certain: number;
}

function blockedTimes(
  { attempt, registered, socket }: CompleteConnection,
  { published, rankOf, isImmediate }: OracleFacts,
): BlockedTime[] {
  const blocked: BlockedTime[] = [];
  const { lastEventId, plan, isResumed } = attempt;
  // A client without an id starts at the newest event. With `from: "earliest"` its start is unknown until it receives something.
  const startsAtHead = isImmediate && lastEventId === undefined && plan.start === "live";
  let least = startsAtHead ? registered.head : rankOfRequest(attempt, rankOf);
  let most = isResumed ? least : registered.head;
  const { chunks, requestedAt } = socket;
  for (let index = 0; index < Math.max(1, chunks.length); index++) {
    for (const { id } of chunks[index]?.items ?? []) {
      if (id === undefined) continue;
      least = Math.max(least, rankOf(id));
      most = Math.max(most, rankOf(id));
    }
    // The first chunk is enqueued without a request.
    const from = index === 0 ? registered.at : (chunks[index]?.at ?? Infinity);
    const to = requestedAt[index + 1] ?? Infinity;
    if (to === from) continue;
    const joined = attempt.memberships.length > 0 ? [JOINED] : [];
    const since = Math.max(from, nextEventTime([...attempt.channels, ...joined], least, published));
    const certain = Math.max(from, nextEventTime(attempt.channels, most, published));
    blocked.push({ from, to, since, certain });
  }
  return blocked;
}

/** Returns when the first event of some channels after a rank was appended, or `Infinity`. */
const nextEventTime = (read: readonly string[], rank: number, published: readonly PublishedEvent[]): number =>
  published.find(({ seq, channels }) => seq > rank && channels.some((name) => read.includes(name)))?.at ?? Infinity;

/** The connection ends after `timeout` × `tolerance` without progress while there is something to receive; neither sooner nor later. */
function checkTimeout(connection: CompleteConnection, facts: OracleFacts): string[] {
  const { closed, registered, socket, attempt } = connection;
  const { timeout, tolerance } = facts.settings;
  // An announcement of changed channels is something to receive, too.
  if (attempt.memberships.length > 0) return [];
  const timeouts = Math.max(1, tolerance);
  const limit = timeout * timeouts;
  const dues = blockedTimes(connection, facts).map(({ since, certain, to }) => ({
    earliest: since + limit,
    latest: certain + limit,
    to,
  }));
  const neverRead = registered.at + Math.max(MIN_START_MS, limit);
  if (socket.chunks.length === 0) dues.push({ earliest: neverRead, latest: neverRead, to: Infinity });
  if (closed.reason === "timeout") {
    if (!facts.isExact) return [];
    // A timer may fire a millisecond early each time.
    const isRight = dues.some(
      ({ earliest, latest, to }) =>
        earliest - timeouts <= to && closed.at >= earliest - timeouts && (!facts.isImmediate || closed.at <= latest),
    );
    const due = dues.map(({ earliest }) => earliest).join(", ");
    return isRight ? [] : [`it timed out at ${closed.at}, due at ${due}`];
  }
  if (!facts.isImmediate) return [];
  const overdue = dues.find(({ latest, to }) => latest < Math.min(to, closed.at));
  return overdue ? [`it did not time out, due at ${overdue.latest}`] : [];
}

/** The reason of the end fits, and the time fits the reason. */
function checkReason(
  connection: CompleteConnection,
  { settings, disconnects, isImmediate, isSynchronous }: OracleFacts,
): string[] {
  const { attempt, registered, closed } = connection;
  const { instance, leftAt = Infinity, plan } = attempt;
  const { closing } = instance;
  const expires = expiryTime(connection);
  const oldest = registered.at + settings.maxAge;
  const closes = closing ? closing.at + closing.spreadOver + (isSynchronous ? 0 : closingTimeout(settings)) : Infinity;
  const disconnected = instance.disconnects.find(({ at, id }) => id === plan.id && at > registered.at)?.at ?? Infinity;
  const deadlines = { leftAt, expires, oldest: oldest + 1, closes, disconnected };
  const faults = Object.entries(deadlines).flatMap(([name, at]) =>
    closed.at > at ? [`it closed at ${closed.at}, due at ${at} (${name})`] : [],
  );
  const isRight: Record<typeof closed.reason, () => boolean> = {
    "client-left": () => closed.at === leftAt,
    timeout: () => true,
    expired: () => closed.at >= attempt.expiresAt && closed.at <= expires,
    "max-age": () => closed.at >= registered.at + settings.maxAge / 2,
    disconnected: () =>
      disconnects.some(({ id, at }) => id === plan.id && (isImmediate ? at === closed.at : at <= closed.at)),
    replaced: () =>
      settings.duplicateIds === "replace" &&
      instance.attempts.some(
        (other) => other !== attempt && other.plan.id === plan.id && other.registered?.at === closed.at,
      ),
    closing: () => closing !== undefined && closed.at >= closing.at,
    "write-failed": () => false,
    "snapshot-failed": () => false,
  };
  return isRight[closed.reason]()
    ? faults
    : [...faults, `it closed at ${closed.at} as ${closed.reason}, without cause`];
}

/** Returns when the grant of a connection expires: one millisecond after its registration at the earliest. */
const expiryTime = ({ attempt, registered }: CompleteConnection): number =>
  Math.max(attempt.expiresAt, registered.at + 1);

/** Returns how many milliseconds a client may take to read its end event. */
const closingTimeout = ({ timeout }: HistorySettings): number => (timeout === Infinity ? MAX_CLOSING_MS : timeout);

/** The stream ends with an end event for a client that reads it in time, otherwise without one. */
function checkEnd(connection: CompleteConnection, facts: OracleFacts): string[] {
  const { attempt, closed, socket, ended } = connection;
  const { reason, at } = closed;
  const last = socket.chunks.at(-1)?.items.at(-1);
  const hasEndEvent = last?.type === "end";
  if (ended.how === "errored" || (ended.how === "closed" && hasEndEvent && last.reason !== reason))
    return [`its stream is ${ended.how} as ${reason}, and its last item is ${JSON.stringify(last)}`];
  if (ended.how === "left") return ended.at === attempt.leftAt ? [] : ["its stream was cancelled, and no client left"];
  if (reason === "client-left") return ["its stream was ended, and its client had left"];
  // The first chunk is enqueued without a request.
  const requests = socket.requestedAt
    .slice(1)
    .map((from, index) => ({ from, to: socket.chunks[index + 1]?.at ?? Infinity }));
  const next = Math.min(...requests.filter(({ from }) => from > at).map(({ from }) => from));
  const mayRead = requests.some(({ from, to }) => from <= at && to >= at);
  const isReading = requests.some(({ from, to }) => from < at && to > at);
  // Where events have to be fetched from a store, an open request does not show that the client can receive something at once.
  const isLive = facts.isImmediate && isReading;
  // The grant may expire first.
  const latest = Math.min(at + closingTimeout(facts.settings), expiryTime(connection));
  // The first chunk stays in a stream that is closed before it is read, and the stream ends once it is.
  const firstReadAt = socket.chunks[0]?.at ?? Infinity;
  const isForced = (when: number, earliest = when - 1): boolean =>
    !hasEndEvent && ended.at <= Math.max(when, firstReadAt) && ended.at >= Math.max(earliest, firstReadAt);
  const isClosed = hasEndEvent && ((mayRead && ended.at === at) || (!isReading && ended.at === next));
  const isRight: Record<typeof reason, () => boolean> = {
    timeout: () => isForced(at, at),
    expired: () => (hasEndEvent ? ended.at === at && mayRead : isForced(at, at) && !isLive),
    closing: () => (hasEndEvent ? (isLive ? ended.at === at : ended.at <= latest) : isForced(latest)),
    disconnected: () => isClosed || (!isReading && next >= latest - 1 && isForced(latest)),
    replaced: () => isRight.disconnected(),
    "max-age": () => isRight.disconnected(),
    "write-failed": () => false,
    "snapshot-failed": () => false,
  };
  if (!isRight[reason]()) {
    const state = isReading ? "it reads" : mayRead ? "it may read" : "it does not read";
    const how = `${ended.how} ${hasEndEvent ? "with" : "without"} an end event`;
    return [`its stream is ${how} at ${ended.at} as ${reason} at ${at}; ${state} then, and reads at ${next}`];
  }
  return reason === "closing" && hasEndEvent ? checkDrained(connection, facts) : [];
}

/** A client that reads its end event has received every event from before the broker began to close. */
function checkDrained(
  { attempt, socket }: CompleteConnection,
  { published, rankOf, isImmediate, settings }: OracleFacts,
): string[] {
  const { events, eventsOfB = Infinity, bytes, age } = settings;
  // A client that starts with retained events has no claim to dropped ones.
  if (RETAINED_STARTS[attempt.plan.start] && Math.min(events, eventsOfB, bytes, age) < Infinity) return [];
  const { closing } = attempt.instance;
  const ids = socket.chunks.flatMap(({ items }) => items.flatMap(({ id }) => (id === undefined ? [] : [rankOf(id)])));
  const next = nextEventTime(attempt.channels, Math.max(rankOfRequest(attempt, rankOf), ...ids), published);
  if (!isImmediate || !closing || next >= closing.at) return [];
  return [`it received fanwire-end, and not an event that was there since ${next}`];
}

/** A client receives a heartbeat when it has waited for about `heartbeat` without receiving anything, and only then. */
function checkHeartbeat({ closed, socket }: CompleteConnection, { settings: { heartbeat } }: OracleFacts): string[] {
  const { chunks, requestedAt } = socket;
  const faults: string[] = [];
  for (let index = 1; index < requestedAt.length; index++) {
    const requested = requestedAt[index] ?? Infinity;
    const { at = closed.at, items = [] } = chunks[index] ?? {};
    const sinceLast = at - (chunks[index - 1]?.at ?? 0);
    const isHeartbeat = items.length > 0 && items.every(({ type }) => type === "comment" || type === "position");
    if (isHeartbeat && sinceLast < (heartbeat * 15) / 16)
      faults.push(`it receives a heartbeat at ${at}, ${sinceLast} ms after the last chunk`);
    if (Math.min(at, closed.at) - requested > (heartbeat * 17) / 16)
      faults.push(`it waits from ${requested} to ${at} without a heartbeat`);
  }
  return faults;
}
