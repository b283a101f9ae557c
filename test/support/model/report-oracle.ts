import type { DeliveryReport, FailureReason } from "../../../src/index.ts";
import type { Told } from "../oracle/oracle.ts";
import type { Call } from "./publisher.ts";
import type { Visit } from "./visit.ts";
import type { Facts } from "./visit-oracle.ts";

// What a publisher may expect of a report: it is about each client that the event was for when it was appended, and says what became of it
// there. Of an event that was appended before, it is about those who did not have it yet. Said from who was connected when, and what each
// was given when; of what happens in the same millisecond nobody knows what came first.

/** Somebody whom an event may be for. */
export interface Member {
  readonly visit: Visit;
  /** It certainly is. */
  readonly isSure: boolean;
}

type Fate = "sent" | FailureReason;
type Report = DeliveryReport & { readonly at: number };

/** Who was connected when an event of a call was appended. */
export const membersAtAppend = (call: Call, event: Told, facts: Facts): Member[] =>
  // Who came before it was told of an older one as the newest.
  membersAt(call, event.at ?? 0, facts, ({ head }) => (head < event.seq ? -1 : 1));

/** Who was connected when a call was answered by the engine. */
export const membersAtAnswer = (call: Call, facts: Facts): Member[] => {
  const time = call.asked?.answeredAt ?? 0;
  return membersAt(call, time, facts, ({ at }) => at - time);
};

/** Who of the clients of a call was connected at a time; `came` is negative for who had come, and positive for who came after it. */
function membersAt(
  { instance, channels, clients }: Call,
  time: number,
  { isPrompt }: Facts,
  came: (registered: NonNullable<Visit["registered"]>) => number,
): Member[] {
  return instance.visits.flatMap((visit) => {
    const { registered, gone, socket } = visit;
    if (!registered || !channels.some((name) => visit.channels.includes(name))) return [];
    const { connectionId } = registered.info;
    if (isPrompt) return clients.some((info) => info.connectionId === connectionId) ? [{ visit, isSure: true }] : [];
    const leaves = gone?.at ?? Infinity;
    // Who is given the rest before it ends is there until then.
    const ends = gone?.reason === "closing" ? (socket?.over?.at ?? leaves) : leaves;
    if (came(registered) > 0 || ends < time) return [];
    return [{ visit, isSure: came(registered) < 0 && leaves > time }];
  });
}

/** Those of them who did not have an event yet, nor what comes after it, at a time. */
export const waitersOf = (members: readonly Member[], event: Told, time: number, facts: Facts): Member[] =>
  members.flatMap(({ visit, isSure }) => {
    const past = passedAt(visit, event, facts);
    if (past < time) return [];
    return [{ visit, isSure: isSure && past > time && knowsBeginning(visit, event) }];
  });

/** When a client was first past an event. */
function passedAt(visit: Visit, { seq }: Told, { place }: Facts): number {
  const { asked, plan, registered, socket } = visit;
  const isLive = asked === undefined && plan.beginning === "live";
  const begins = isLive ? (registered?.head ?? 0) : isResumed(visit) ? place(asked ?? "") : 0;
  if (begins >= seq) return -Infinity;
  const index = (socket?.given ?? []).findIndex(({ items }) => items.some(({ id }) => id && place(id) >= seq));
  // What it is told first says where it begins, whenever it reads that.
  return index === 0 ? -Infinity : (socket?.given[index]?.at ?? Infinity);
}

const isResumed = ({ asked }: Visit): boolean => asked !== undefined && !asked.startsWith("elsewhere");

/** Where who asks for what is kept begins is between that and the newest, and it need not be told. */
const knowsBeginning = (visit: Visit, { seq }: Told): boolean =>
  isResumed(visit) || visit.plan.beginning === "live" || (visit.registered?.head ?? 0) < seq;

/** Who asks for what is kept, when it may be that already less is, has no claim to an event that it was never given. */
const hadNoClaim = (visit: Visit, event: Told, facts: Facts): boolean =>
  visit.asked === undefined && !knowsBeginning(visit, event) && fateOf(visit, event, "sent", facts) === undefined;

/** What is wrong with a report on an event, about members of it who had not had it at a time; nobody is waited for after the deadline. */
export function judgeMembers(
  { sent, failed, at }: Report,
  answeredAt: number,
  members: readonly Member[],
  event: Told,
  deadline: number,
  facts: Facts,
): string[] {
  const faults: string[] = [];
  const failures = new Map(failed.map(({ connectionId, reason }) => [connectionId, reason]));
  const count = { least: 0, most: 0 };
  const due = { least: answeredAt, most: answeredAt };
  for (const { visit, isSure } of members) {
    const { connectionId = "", clientId } = visit.registered?.info ?? {};
    const reason: Fate = failures.get(connectionId) ?? "sent";
    const isAbout = isSure || failures.delete(connectionId);
    failures.delete(connectionId);
    const fates = fatesOf(visit, event, deadline, facts);
    const first = Math.min(...fates.map((fate) => fate.at));
    // Led past it without a word, whenever that was.
    if (reason === "lost" && hadNoClaim(visit, event, facts)) {
      due.most = Math.max(due.most, first);
      continue;
    }
    const isRight = fates.some((fate) => fate.at === first && fate.reason === reason);
    if (isRight || isAbout) due.most = Math.max(due.most, first);
    if (isAbout) due.least = Math.max(due.least, first);
    if (isRight && reason === "sent") count.most++;
    if (isSure && reason === "sent") count.least++;
    const all = fates.map((fate) => `${fate.reason} at ${fate.at}`).join(", ");
    if (isAbout && !isRight) faults.push(`the report says of ${clientId} ${reason}, of ${all}`);
  }
  for (const connectionId of failures.keys()) faults.push(`its report is about ${connectionId}, and the event is not`);
  if (faults.length > 0) return faults;
  if (sent < count.least || sent > count.most)
    return [`its report says ${sent} sent, of ${count.least} to ${count.most}`];
  return at < due.least || at > due.most ? [`its report came at ${at}, and not at ${due.least} to ${due.most}`] : [];
}

/** What became of an event at a client, and when. */
function fatesOf(
  visit: Visit,
  event: Told,
  deadline: number,
  facts: Facts,
): { readonly reason: Fate; readonly at: number }[] {
  const { gone, socket, leftAt } = visit;
  const fates: { reason: Fate; at: number | undefined }[] = [
    { reason: "late", at: deadline },
    { reason: "sent", at: fateOf(visit, event, "sent", facts) },
    { reason: "lost", at: fateOf(visit, event, "lost", facts) },
  ];
  // Who is given the rest before it ends is not given up before that.
  if (gone?.reason === "closing") {
    fates.push({ reason: "closing", at: socket?.over?.at }, { reason: "expired", at: visit.expiresAt });
    if (leftAt !== undefined) fates.push({ reason: "client-left", at: leftAt });
  } else if (gone) fates.push({ reason: gone.reason, at: gone.at });
  return fates.flatMap(({ reason, at }) => (at === undefined ? [] : [{ reason, at }]));
}

/** When it was given to a client, or the client was told of what comes after it instead. */
export function fateOf({ socket }: Visit, { seq }: Told, fate: "sent" | "lost", { place }: Facts): number | undefined {
  for (const { at, items } of socket?.given ?? []) {
    const places = items.flatMap(({ id }) => (id === undefined ? [] : [place(id)]));
    if (Math.max(0, ...places) < seq) continue;
    const isThere = items.some((item) => item.type === "event" && place(item.id) === seq);
    return isThere === (fate === "sent") ? at : undefined;
  }
  return undefined;
}
