// The oracle of a delivery report. A report covers each client that the event was for when it was appended, and says how the event ended
// there. For a repeated event it covers the clients that have not received the event yet. The oracle knows who was
// connected when, and what each client received when. Events of one millisecond may have happened in any order.
import type { DeliveryReport, FailureReason } from "../../../src/index.ts";
import type { PublishedEvent } from "../oracle/oracle.ts";
import { type ConnectionAttempt, rankOfRequest } from "./connection-attempt.ts";
import type { OracleFacts } from "./connection-oracle.ts";
import type { PublishCall } from "./publisher.ts";
import { JOINED } from "./stream-oracle.ts";

/** A connection that an event may be for. */
export interface AudienceMember {
  readonly attempt: ConnectionAttempt;
  /** Whether the event is certainly for it. */
  readonly isCertain: boolean;
}

type Fate = "sent" | FailureReason;
type Report = DeliveryReport & { readonly at: number };

/** Returns the connections that were open when the event of a call was appended. */
export const audienceAtAppend = (call: PublishCall, event: PublishedEvent, facts: OracleFacts): AudienceMember[] =>
  // A connection that was registered earlier saw an older event as the newest.
  audienceAt(call, event.at ?? 0, facts, ({ head }) => (head < event.seq ? -1 : 1));

/** Returns the connections that were open when the engine answered a call. */
export const audienceAtAnswer = (call: PublishCall, facts: OracleFacts): AudienceMember[] => {
  const time = call.outcome?.answeredAt ?? 0;
  return audienceAt(call, time, facts, ({ at }) => at - time);
};

/**
 * Returns the connections that were open at a time and read a channel of a call. `compare` is negative for a registration before that time,
 * and positive for one after it.
 */
function audienceAt(
  { instance, channels, clients }: PublishCall,
  time: number,
  { isSynchronous }: OracleFacts,
  compare: (registered: NonNullable<ConnectionAttempt["registered"]>) => number,
): AudienceMember[] {
  return instance.attempts.flatMap((attempt) => {
    const { registered, closed, socket } = attempt;
    const reads = channels.some((name) => attempt.channels.includes(name));
    // Another oracle knows when it was a member.
    const mayRead = reads || (channels.includes(JOINED) && attempt.memberships.length > 0);
    if (!registered || !mayRead) return [];
    const { connectionId } = registered.info;
    if (isSynchronous)
      return clients.some((info) => info.connectionId === connectionId) ? [{ attempt, isCertain: reads }] : [];
    const closedAt = closed?.at ?? Infinity;
    // A connection that is drained is there until its stream ends.
    const endsAt = closed?.reason === "closing" ? (socket?.ended?.at ?? closedAt) : closedAt;
    if (compare(registered) > 0 || endsAt < time) return [];
    return [{ attempt, isCertain: reads && compare(registered) < 0 && closedAt > time }];
  });
}

/** Returns the members whose cursor had not reached an event at a time. */
export const waitingMembers = (
  members: readonly AudienceMember[],
  event: PublishedEvent,
  time: number,
  facts: OracleFacts,
): AudienceMember[] =>
  members.flatMap(({ attempt, isCertain }) => {
    const passed = passedAt(attempt, event, facts);
    if (passed < time) return [];
    return [{ attempt, isCertain: isCertain && passed > time && startsBefore(attempt, event) }];
  });

/** Returns when a client's cursor first was at an event or behind it. */
function passedAt(attempt: ConnectionAttempt, { seq }: PublishedEvent, { rankOf }: OracleFacts): number {
  const { lastEventId, plan, registered, socket } = attempt;
  const isLive = lastEventId === undefined && plan.start === "live";
  const start = isLive ? (registered?.head ?? 0) : rankOfRequest(attempt, rankOf);
  if (start >= seq) return -Infinity;
  const index = (socket?.chunks ?? []).findIndex(({ items }) => items.some(({ id }) => id && rankOf(id) >= seq));
  // The first chunk says where the client starts, whenever it is read.
  return index === 0 ? -Infinity : (socket?.chunks[index]?.at ?? Infinity);
}

/**
 * Whether a client certainly starts before an event. The start of a client with `from: "earliest"` lies between the oldest retained event and
 * the newest one, and need not be announced.
 */
const startsBefore = (attempt: ConnectionAttempt, { seq }: PublishedEvent): boolean =>
  attempt.isResumed || attempt.plan.start === "live" || (attempt.registered?.head ?? 0) < seq;

/** Whether a client had no claim to an event that it never received: it asked for the retained events, and retention may have dropped this one. */
const hadNoClaim = (attempt: ConnectionAttempt, event: PublishedEvent, facts: OracleFacts): boolean =>
  attempt.lastEventId === undefined &&
  !startsBefore(attempt, event) &&
  deliveryTime(attempt, event, "sent", facts) === undefined;

/** Returns the faults of a report on an event, for members that had not received it. The report does not wait after the deadline. */
export function findReportFaults(
  { sent, failed, at }: Report,
  answeredAt: number,
  members: readonly AudienceMember[],
  event: PublishedEvent,
  deadline: number,
  facts: OracleFacts,
): string[] {
  const faults: string[] = [];
  const failures = new Map(failed.map(({ connectionId, reason }) => [connectionId, reason]));
  const count = { least: 0, most: 0 };
  const due = { earliest: answeredAt, latest: answeredAt };
  for (const { attempt, isCertain } of members) {
    const { connectionId = "", clientId } = attempt.registered?.info ?? {};
    const reason: Fate = failures.get(connectionId) ?? "sent";
    const isCovered = isCertain || failures.delete(connectionId);
    failures.delete(connectionId);
    const fates = fatesOf(attempt, event, deadline, facts);
    const first = Math.min(...fates.map((fate) => fate.at));
    // The cursor passed the event without a gap, at an unknown time.
    if (reason === "lost" && hadNoClaim(attempt, event, facts)) {
      due.latest = Math.max(due.latest, first);
      continue;
    }
    const isRight = fates.some((fate) => fate.at === first && fate.reason === reason);
    if (isRight || isCovered) due.latest = Math.max(due.latest, first);
    if (isCovered) due.earliest = Math.max(due.earliest, first);
    if (isRight && reason === "sent") count.most++;
    if (isCertain && reason === "sent") count.least++;
    const possible = fates.map((fate) => `${fate.reason} at ${fate.at}`).join(", ");
    if (isCovered && !isRight) faults.push(`its report says ${reason} for ${clientId}; possible is ${possible}`);
  }
  for (const connectionId of failures.keys())
    faults.push(`its report lists ${connectionId}, and the event was not for that connection`);
  if (faults.length > 0) return faults;
  if (sent < count.least || sent > count.most)
    return [`its report says ${sent} sent, and it is ${count.least} to ${count.most}`];
  return at < due.earliest || at > due.latest
    ? [`its report came at ${at}, due at ${due.earliest} to ${due.latest}`]
    : [];
}

/** Returns what may have happened to an event at a client, and when. */
function fatesOf(
  attempt: ConnectionAttempt,
  event: PublishedEvent,
  deadline: number,
  facts: OracleFacts,
): { readonly reason: Fate; readonly at: number }[] {
  const { closed, socket, leftAt } = attempt;
  const fates: { reason: Fate; at: number | undefined }[] = [
    { reason: "late", at: deadline },
    { reason: "sent", at: deliveryTime(attempt, event, "sent", facts) },
    { reason: "lost", at: deliveryTime(attempt, event, "lost", facts) },
  ];
  // A connection that is drained has not failed before its stream ends.
  if (closed?.reason === "closing") {
    fates.push({ reason: "closing", at: socket?.ended?.at }, { reason: "expired", at: attempt.expiresAt });
    if (leftAt !== undefined) fates.push({ reason: "client-left", at: leftAt });
  } else if (closed) fates.push({ reason: closed.reason, at: closed.at });
  return fates.flatMap(({ reason, at }) => (at === undefined ? [] : [{ reason, at }]));
}

/** Returns when an event was sent to a client, or (`"lost"`) when the client received something after it instead. */
export function deliveryTime(
  { socket }: ConnectionAttempt,
  { seq }: PublishedEvent,
  fate: "sent" | "lost",
  { rankOf }: OracleFacts,
): number | undefined {
  for (const { at, items } of socket?.chunks ?? []) {
    const ranks = items.flatMap(({ id }) => (id === undefined ? [] : [rankOf(id)]));
    if (Math.max(0, ...ranks) < seq) continue;
    const isSent = items.some((item) => item.type === "event" && rankOf(item.id) === seq);
    return isSent === (fate === "sent") ? at : undefined;
  }
  return undefined;
}
