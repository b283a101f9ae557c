import type { Told } from "../oracle/oracle.ts";
import type { Setting } from "./history.ts";
import type { Instance } from "./instance.ts";
import type { Over, VirtualSocket } from "./socket.ts";
import type { Registered, Visit } from "./visit.ts";

// What one connection may expect: when it is given up, ended, or sent a heartbeat, and what its stream is. Said from what was published when,
// and what the stream gave when it was asked when.

/** What the oracle has to know beside the connections. */
export interface Facts {
  readonly setting: Setting;
  readonly published: readonly Told[];
  readonly place: (id: string) => number;
  /** What was told to end, in all processes. */
  readonly disconnects: Instance["disconnects"];
  /** An event is there for its clients when it is appended. Else it is later, nobody knows by how much. */
  readonly isHere: boolean;
  /** The engine answers at once as well. */
  readonly isPrompt: boolean;
  /** Nothing but what was published gives clients something to read. */
  readonly isPlain: boolean;
}

/** Milliseconds that a response may be on its way, at least, before the first of it is read. */
const LONGEST_START = 60_000;
/** Milliseconds that an end may be on its way where `timeout` is Infinity. */
const LONGEST_END = 30_000;

/** Milliseconds that what one process says may be on its way to another. */
const LONGEST_WAY = 3_000;

/** A connection that was registered and got its stream. */
interface Life {
  readonly visit: Visit;
  readonly registered: Registered;
  readonly gone: NonNullable<Visit["gone"]>;
  readonly socket: VirtualSocket;
  readonly over: Over;
}

/** What is wrong with what a process said of itself when it had closed. */
export function judgeInstance(
  { broker, closing, visits, errors, disconnects, process }: Instance,
  facts: Facts,
): string[] {
  const faults = [...errors];
  const { clients, ids, blocked, closing: ending, pending, channels, ...stats } = broker.stats();
  const left = { clients, ids, blocked, ending, pending, channels };
  if (Object.values(left).some((count) => count > 0)) faults.push(`it has left ${JSON.stringify(left)}`);
  const latest = (closing?.at ?? 0) + (closing?.over ?? 0) + endOf(facts.setting) * (facts.isPrompt ? 1 : 2);
  if (!closing?.doneAt || closing.doneAt > latest) faults.push(`it closed at ${closing?.doneAt}, due at ${latest}`);
  for (const { at, id, clients, connections } of disconnects)
    if (facts.isHere && clients !== connections)
      faults.push(`disconnect at ${at} ended ${clients} of ${id}, not ${connections}`);
  const reasons = new Map<string, number>();
  for (const { gone } of visits) if (gone) reasons.set(gone.reason, (reasons.get(gone.reason) ?? 0) + 1);
  if (Object.entries(stats.disconnects).some(([reason, count]) => reasons.get(reason) !== count))
    faults.push(`it counts ${JSON.stringify(stats.disconnects)}, and there were ${JSON.stringify([...reasons])}`);
  // What nobody asked for is counted when it is there.
  const areRead = visits.every(({ registered, socket }) => !registered || (socket && socket.given.length > 0));
  const items = visits.flatMap(({ socket }) => socket?.given.flatMap((given) => given.items) ?? []);
  const count = (type: string): number => items.filter((item) => item.type === type).length;
  if (areRead && (stats.sent !== count("event") || stats.gaps !== count("gap")))
    faults.push(`it counts ${stats.sent} events and ${stats.gaps} gaps, of ${count("event")} and ${count("gap")}`);
  return faults.map((fault) => `process ${process}: ${fault}`);
}

/** What is wrong with the connections of a process. */
export function judgeVisits(instance: Instance, facts: Facts): string[] {
  return instance.visits.flatMap((visit, index) => {
    const { registered, gone, socket } = visit;
    const faults = judgeStatus(visit, facts);
    if (registered && !gone) faults.push("it was never said to be gone");
    else if (registered && gone && socket?.over)
      faults.push(...judgeLife({ visit, registered, gone, socket, over: socket.over }, facts));
    else if (socket && !socket.over) faults.push("its stream is open");
    return faults.map((fault) => `process ${instance.process}, visit ${index}, ${visit.plan.id}: ${fault}`);
  });
}

const judgeLife = (life: Life, facts: Facts): string[] => [
  ...judgeGiven(life, facts),
  ...judgePatience(life, facts),
  ...judgeReason(life, facts),
  ...judgeEnd(life, facts),
  ...judgeHeartbeat(life, facts),
];

/** How it was answered. */
function judgeStatus(visit: Visit, { setting, disconnects, isHere }: Facts): string[] {
  const { status, registered, instance, calledAt, leftAt, plan } = visit;
  if (status === undefined) return ["it was never answered"];
  // Another process counts from when it is told.
  const way = isHere ? 0 : LONGEST_WAY;
  const isBarred = disconnects.some(
    (call) => call.id === plan.id && call.at <= visit.answeredAt && call.at + call.for + way > calledAt,
  );
  if (status === 204 && !isBarred) return ["it is turned away, and not barred"];
  const own = instance.disconnects.filter((call) => call.id === plan.id);
  if (registered && own.some((call) => call.at < registered.at && call.at + call.for > registered.at))
    return ["it is barred, and was let in"];
  const others = instance.visits.filter((other) => other !== visit && other.plan.id === plan.id);
  const isTaken = others.some((other) => isThere(other, calledAt) || isThere(other, visit.answeredAt));
  if (status === 409 && !(setting.duplicateIds === "reject" && isTaken)) return ["it is refused as a duplicate"];
  if (registered && setting.duplicateIds !== "allow" && others.some((other) => overlaps(other, registered.at)))
    return ["there is another one of its id"];
  const isRefused = status === 200 && !registered;
  if (isHere && isRefused && leftAt === undefined && !instance.closing) return ["it is told to come back, and why?"];
  return [200, 204, 409].includes(status) || leftAt !== undefined ? [] : [`it is answered ${status}`];
}

const isThere = ({ registered, gone }: Visit, at: number): boolean =>
  registered !== undefined && registered.at <= at && (gone?.at ?? Infinity) >= at;
const overlaps = ({ registered, gone }: Visit, at: number): boolean =>
  registered !== undefined && registered.at < at && (gone?.at ?? Infinity) > at;

/** Positions only grow, events come once, and the beginning says where that is. */
function judgeGiven({ visit, registered, socket }: Life, { place, isHere }: Facts): string[] {
  const faults: string[] = [];
  const items = socket.given.flatMap((given) => given.items);
  const [first] = items;
  const isResumed = visit.asked !== undefined && !visit.asked.startsWith("elsewhere");
  if (first && first.type !== "ready") faults.push("its stream begins without a word");
  if (first?.id !== undefined && isResumed && first.id !== visit.asked)
    faults.push(`it asked for ${visit.asked}, and begins at ${first.id}`);
  if (first?.id !== undefined && visit.asked === undefined && visit.plan.beginning === "live") {
    const begins = place(first.id);
    if (isHere ? begins !== registered.head : begins > registered.head)
      faults.push(`it begins live at ${begins}, while the newest is ${registered.head}`);
  }
  let last = 0;
  let lastEvent = 0;
  for (const { type, id } of items) {
    const at = id === undefined ? last : place(id);
    if (at < last || (type === "event" && at <= lastEvent)) faults.push(`it is given ${at} after ${last}`);
    if (type === "event") lastEvent = at;
    last = at;
  }
  const ends = items.findIndex(({ type }) => type === "end");
  if (ends >= 0 && ends < items.length - 1) faults.push("it is given something after its end");
  return faults;
}

/** A time in which nothing was asked for: after the chunk of this number, or after none. */
interface Block {
  readonly from: number;
  readonly to: number;
  /** When there was something that it could have been given, and when there certainly was. */
  readonly since: number;
  readonly certain: number;
}

function blocksOf({ visit, registered, socket }: Life, { published, place, isHere }: Facts): Block[] {
  const blocks: Block[] = [];
  const { asked, plan } = visit;
  // Who comes without an id begins at the newest event. Of those who ask for what is kept nobody knows what that is before they are told.
  let least = isHere && asked === undefined && plan.beginning === "live" ? registered.head : askedOf(visit, place);
  let most = asked === undefined || asked.startsWith("elsewhere") ? registered.head : least;
  const { given, wanted } = socket;
  for (let index = 0; index < Math.max(1, given.length); index++) {
    for (const { id } of given[index]?.items ?? []) {
      if (id === undefined) continue;
      least = Math.max(least, place(id));
      most = Math.max(most, place(id));
    }
    // What it is told first is not asked for.
    const from = index === 0 ? registered.at : (given[index]?.at ?? Infinity);
    const to = wanted[index + 1] ?? Infinity;
    if (to === from) continue;
    const [since, certain] = [least, most].map((position) => Math.max(from, nextOf(visit, position, published)));
    blocks.push({ from, to, since, certain } as Block);
  }
  return blocks;
}

/** When the first event was appended that is for a client and after a position. */
const nextOf = (visit: Visit, position: number, published: readonly Told[]): number =>
  published.find(({ seq, channels }) => seq > position && channels.some((name) => visit.channels.includes(name)))?.at ??
  Infinity;

/** The position that it came with. */
const askedOf = ({ asked }: Visit, place: Facts["place"]): number =>
  asked === undefined || asked.startsWith("elsewhere") ? 0 : place(asked);

/** It is given up after `timeout` × `tolerance` without progress, with something to receive; neither sooner nor later. */
function judgePatience(life: Life, facts: Facts): string[] {
  const { gone, registered, socket } = life;
  const { timeout, tolerance } = facts.setting;
  const times = Math.max(1, tolerance);
  const patience = timeout * times;
  const dues = blocksOf(life, facts).map(({ since, certain, to }) => ({
    at: since + patience,
    latest: certain + patience,
    to,
  }));
  const begins = registered.at + Math.max(LONGEST_START, patience);
  if (socket.given.length === 0) dues.push({ at: begins, latest: begins, to: Infinity });
  if (gone.reason === "timeout") {
    if (!facts.isPlain) return [];
    // A timer may be early by a millisecond each time.
    const isRight = dues.some(
      ({ at, latest, to }) => at - times <= to && gone.at >= at - times && (!facts.isHere || gone.at <= latest),
    );
    return isRight ? [] : [`it was given up at ${gone.at}, due at ${dues.map(({ at }) => at).join(", ")}`];
  }
  if (!facts.isHere) return [];
  const overdue = dues.find(({ latest, to }) => latest < Math.min(to, gone.at));
  return overdue ? [`it was not given up, due at ${overdue.latest}`] : [];
}

/** Why it was ended, and when. */
function judgeReason(life: Life, { setting, disconnects, isHere, isPrompt }: Facts): string[] {
  const { visit, registered, gone } = life;
  const { instance, leftAt = Infinity, plan } = visit;
  const { closing } = instance;
  const expires = expiryOf(life);
  const oldest = registered.at + setting.maxAge;
  const closes = closing ? closing.at + closing.over + (isPrompt ? 0 : endOf(setting)) : Infinity;
  const own = instance.disconnects.find(({ at, id }) => id === plan.id && at > registered.at)?.at ?? Infinity;
  const faults = Object.entries({ leftAt, expires, oldest: oldest + 1, closes, own }).flatMap(([name, at]) =>
    gone.at > at ? [`it is gone at ${gone.at}, and should be at ${at} (${name})`] : [],
  );
  const isRight: Record<typeof gone.reason, () => boolean> = {
    "client-left": () => gone.at === leftAt,
    timeout: () => true,
    expired: () => gone.at >= visit.expiresAt && gone.at <= expires,
    "max-age": () => gone.at >= registered.at + setting.maxAge / 2,
    disconnected: () => disconnects.some(({ id, at }) => id === plan.id && (isHere ? at === gone.at : at <= gone.at)),
    replaced: () =>
      setting.duplicateIds === "replace" &&
      instance.visits.some((other) => other !== visit && other.plan.id === plan.id && other.registered?.at === gone.at),
    closing: () => closing !== undefined && gone.at >= closing.at,
    "write-failed": () => false,
  };
  return isRight[gone.reason]() ? faults : [...faults, `it is gone for no reason: ${gone.reason} at ${gone.at}`];
}

/** When what it was granted expires: in a millisecond at the earliest. */
const expiryOf = ({ visit, registered }: Life): number => Math.max(visit.expiresAt, registered.at + 1);

/** How long who is told to end may take to read that. */
const endOf = ({ timeout }: Setting): number => (timeout === Infinity ? LONGEST_END : timeout);

/** How its stream ends: with a word to who reads it in time, else by force. */
function judgeEnd(life: Life, facts: Facts): string[] {
  const { visit, gone, socket, over } = life;
  const { reason, at } = gone;
  const last = socket.given.at(-1)?.items.at(-1);
  const isTold = last?.type === "end";
  if (over.how === "closed" ? !isTold || last.reason !== reason : isTold && over.how === "errored")
    return [`it is ${over.how} for ${reason}, and told ${JSON.stringify(last)}`];
  if (over.how === "left") return over.at === visit.leftAt ? [] : ["it is left, and nobody left it"];
  if (reason === "client-left") return ["its stream was ended, and its client had left"];
  // What it is told first it does not ask for.
  const pulls = socket.wanted.slice(1).map((from, index) => ({ from, to: socket.given[index + 1]?.at ?? Infinity }));
  const next = Math.min(...pulls.filter(({ from }) => from > at).map(({ from }) => from));
  // Of what happens in the same millisecond nobody knows what came first.
  const mayRead = pulls.some(({ from, to }) => from <= at && to >= at);
  const isReading = pulls.some(({ from, to }) => from < at && to > at);
  // Who waits for what has to be fetched cannot be told by what it asked for.
  const isLive = facts.isHere && isReading;
  // What it was granted may expire before.
  const latest = Math.min(at + endOf(facts.setting), expiryOf(life));
  const isForced = (when: number): boolean => over.how === "errored" && over.at <= when && over.at >= when - 1;
  const isClosed = over.how === "closed" && ((mayRead && over.at === at) || (!isReading && over.at === next));
  const isRight: Record<typeof reason, () => boolean> = {
    timeout: () => over.how === "errored" && over.at === at,
    expired: () => over.at === at && (over.how === "closed" ? mayRead : !isLive),
    closing: () => isForced(latest) || (isLive ? over.at === at : over.at <= latest),
    disconnected: () => isClosed || (!isReading && next >= latest - 1 && isForced(latest)),
    replaced: () => isRight.disconnected(),
    "max-age": () => isRight.disconnected(),
    "write-failed": () => false,
  };
  if (!isRight[reason]()) {
    const readsAt = `${isReading ? "it reads" : mayRead ? "it may read" : "it does not read"} then, and reads at ${next}`;
    return [`it is ${over.how} at ${over.at} for ${reason} at ${at}; ${readsAt}`];
  }
  return reason === "closing" && over.how === "closed" ? judgeDrained(life, facts) : [];
}

/** Who reads its end has everything that was there when its broker began to close. */
function judgeDrained({ visit, socket }: Life, { published, place, isHere, setting }: Facts): string[] {
  const { events, bytes, age } = setting;
  // Whoever asks for the earliest has no claim to what is over.
  if (visit.plan.beginning === "earliest" && Math.min(events, bytes, age) < Infinity) return [];
  const { closing } = visit.instance;
  const ids = socket.given.flatMap(({ items }) => items.flatMap(({ id }) => (id === undefined ? [] : [place(id)])));
  const next = nextOf(visit, Math.max(askedOf(visit, place), ...ids), published);
  if (!isHere || !closing || next >= closing.at) return [];
  return [`it is told to end, and was not given what there was since ${next}`];
}

/** A comment comes to who waits and was given nothing for about `heartbeat`, and to nobody else. */
function judgeHeartbeat({ gone, socket }: Life, { setting: { heartbeat } }: Facts): string[] {
  const { given, wanted } = socket;
  const faults: string[] = [];
  for (let index = 1; index < wanted.length; index++) {
    const asked = wanted[index] ?? Infinity;
    const { at = gone.at, items = [] } = given[index] ?? {};
    const isBeat = items.length > 0 && items.every(({ type }) => type === "comment" || type === "position");
    if (isBeat && at - (given[index - 1]?.at ?? 0) < (heartbeat * 15) / 16)
      faults.push(`it is sent a heartbeat at ${at}, ${at - (given[index - 1]?.at ?? 0)} after the last thing`);
    if (Math.min(at, gone.at) - asked > (heartbeat * 17) / 16)
      faults.push(`it waits from ${asked} to ${at} without a heartbeat`);
  }
  return faults;
}
