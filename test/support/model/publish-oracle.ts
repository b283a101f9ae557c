// The oracle of a publisher: the answer to each publish call, and its delivery report, must be true.
import type { PublishedEvent } from "../oracle/oracle.ts";
import type { ConnectionAttempt } from "./connection-attempt.ts";
import type { OracleFacts } from "./connection-oracle.ts";
import type { PublishCall } from "./publisher.ts";
import {
  type AudienceMember,
  audienceAtAnswer,
  audienceAtAppend,
  deliveryTime,
  findReportFaults,
  waitingMembers,
} from "./report-oracle.ts";
import { JOINED } from "./stream-oracle.ts";

/** The longest time that backpressure holds a publisher back, in milliseconds. */
const MAX_HOLD_MS = 50;
/** The codes of a publish that the engine refused. */
const ENGINE_CODES = ["engine-down", "publish-outcome-unknown"];

/** Facts that the oracle needs about the engine. */
export interface PublishFacts extends OracleFacts {
  /** Whether a process that replaces another one knows the clients of that one. */
  readonly namesPersist: boolean;
  /** Whether the engine may refuse an event, and lose an answer. */
  readonly mayFail: boolean;
}

/** Returns the faults in the answers and reports of these calls. */
export function findPublishFaults(calls: readonly PublishCall[], facts: PublishFacts): string[] {
  const faults: string[] = [];
  /** The rank of the last event of each process. */
  const lastRanks = new Map<PublishCall["instance"], number>();
  for (const call of calls) {
    const appended = facts.published.filter(({ data }) => data === call.data);
    const isOnlyCall = calls.every((other) => other === call || other.data !== call.data);
    const name = (fault: string): string => `"${call.data.slice(0, 12)}" at ${call.at}: ${fault}`;
    faults.push(
      ...[...checkAnswer(call, calls, appended, facts), ...checkAppendedOnce(call, appended, facts)].map(name),
    );
    const { wantsReport, answer } = call;
    if (wantsReport && answer?.id) {
      // An event that was published again after its key had expired is in the log twice.
      const event = appended.find(({ seq }) => seq === facts.rankOf(answer.id ?? ""));
      faults.push(...checkReport(call, calls, isOnlyCall, event, facts).map(name));
    }
    // A repeated call has the position of the first one.
    const [{ seq } = { seq: 0 }] = isOnlyCall ? appended : [];
    const last = lastRanks.get(call.instance) ?? 0;
    if (seq > 0 && seq < last) faults.push(name(`its position is ${seq}, and that of an earlier event is ${last}`));
    lastRanks.set(call.instance, Math.max(seq, last));
  }
  return faults;
}

/** A published event is where the answer says, and a refused event is not in the log and was refused for a reason. */
function checkAnswer(
  call: PublishCall,
  calls: readonly PublishCall[],
  appended: readonly PublishedEvent[],
  facts: PublishFacts,
): string[] {
  const { answer, isAfterClose, recipient, instance, outcome } = call;
  if (!answer) return ["it was never answered"];
  if (answer.code !== undefined) return checkRefusal(call, answer.code, calls, appended, facts);
  const event = appended.find(({ seq }) => seq === facts.rankOf(answer.id ?? ""));
  if (!event) return [`its id is ${answer.id}, and the log does not have it there`];
  if (isAfterClose) return ["it was published, and the broker was closing"];
  if (String(event.channels) !== String(call.channels)) return [`it was published to ${event.channels}`];
  if (facts.isImmediate && !facts.namesPersist && recipient !== undefined && recipientState(call, facts) === "unknown")
    return ["it was published, and its recipient is unknown"];
  if (!facts.isImmediate || outcome?.answeredAt === undefined) return [];
  const faults = checkClientCount(call, event, calls, facts);
  if (faults.length > 0) return faults;
  const held = answer.at - outcome.answeredAt;
  if (held > MAX_HOLD_MS) return [`its publisher was held back for ${held} ms`];
  const areAllReading = instance.attempts.every((attempt) => !isBlocked(attempt, answer.at));
  return held > 0 && areAllReading ? [`its publisher was held back for ${held} ms, and no client was blocked`] : [];
}

function checkRefusal(
  call: PublishCall,
  code: string,
  calls: readonly PublishCall[],
  appended: readonly PublishedEvent[],
  facts: PublishFacts,
): string[] {
  const { isAfterClose, recipient, instance } = call;
  const others = calls.filter((other) => other !== call && other.data === call.data);
  const isUnknown = code === "publish-outcome-unknown";
  if (appended.length > 0 && others.length === 0 && !isUnknown) return [`it is in the log, and was refused: ${code}`];
  if (code === "closed") return isAfterClose ? [] : ["it was refused as closed"];
  if (code === "unknown-client")
    return recipient !== undefined && !(facts.isImmediate && recipientState(call, facts) === "known")
      ? []
      : ["it was refused, and its recipient is known"];
  const mayFail = facts.mayFail || instance.closing !== undefined;
  return mayFail && ENGINE_CODES.includes(code) ? [] : [`it was refused: ${code}`];
}

/**
 * The answer counts the right number of clients. With a report they are counted when the event is appended, otherwise when the engine
 * answers.
 */
function checkClientCount(
  call: PublishCall,
  event: PublishedEvent,
  calls: readonly PublishCall[],
  facts: PublishFacts,
): string[] {
  const clients = call.answer?.clients ?? 0;
  const { wantsReport, outcome } = call;
  const isCountedAtAppend = wantsReport && !outcome?.repeated;
  const fits = (members: readonly AudienceMember[]): boolean =>
    clients >= members.filter(({ isCertain }) => isCertain).length && clients <= members.length;
  const members = isCountedAtAppend ? audienceAtAppend(call, event, facts) : audienceAtAnswer(call, facts);
  if (fits(members)) return [];
  if (mayHaveEarlierReport(call, event, calls) && fits(audienceAtAppend(call, event, facts))) return [];
  const least = members.filter(({ isCertain }) => isCertain).length;
  return [`its answer counts ${clients} clients, and there were ${least} to ${members.length}`];
}

/** Each event is appended once, unless its key has expired. */
function checkAppendedOnce(
  { key, isRepeat }: PublishCall,
  appended: readonly PublishedEvent[],
  { settings }: OracleFacts,
): string[] {
  if (isRepeat) return [];
  const isTooEarly = appended.some((event, index) => {
    const before = appended[index - 1];
    return before && (key === undefined || (event.at ?? 0) < (before.at ?? 0) + settings.idempotencyWindow);
  });
  return isTooEarly ? [`it was appended at ${appended.map(({ at }) => at).join(", ")}`] : [];
}

/** Returns the clients that were connected at the call and read a channel of its event. */
const audienceOf = ({ clients, channels, recipient }: PublishCall): PublishCall["clients"] =>
  clients.filter((client) =>
    recipient === undefined
      ? channels[0] === "fanwire-common" || client.channels.some((name) => channels.includes(name))
      : client.clientId === recipient,
  );

/** Returns whether the recipient was connected or lingered. Within one millisecond the order of call and end is unknown. */
function recipientState(call: PublishCall, { settings }: OracleFacts): "known" | "possibly-known" | "unknown" {
  const { at, instance, recipient } = call;
  if (audienceOf(call).length > 0) return "known";
  const lingering = instance.attempts.filter(
    ({ plan, closed }) =>
      plan.id === recipient && closed !== undefined && closed.at <= at && closed.at + settings.inboxLinger > at,
  );
  if (lingering.length === 0) return "unknown";
  return lingering.some(({ registered }) => (registered?.at ?? at) < at) ? "known" : "possibly-known";
}

/** Whether a connection had no open request for a chunk at a time, or until that time. */
function isBlocked({ registered, closed, socket }: ConnectionAttempt, at: number): boolean {
  if (!registered || registered.at > at || (closed && closed.at < at)) return false;
  const { chunks = [], requestedAt = [], ended } = socket ?? {};
  const isBetweenChunks = chunks.some((chunk, index) => chunk.at < at && (requestedAt[index + 1] ?? Infinity) >= at);
  return isBetweenChunks || chunks.length === 0 || ended?.at === at;
}

/** The report lists each client of the event once, and says the truth. */
function checkReport(
  call: PublishCall,
  calls: readonly PublishCall[],
  isOnlyCall: boolean,
  event: PublishedEvent | undefined,
  facts: PublishFacts,
): string[] {
  const { report, answer, instance, outcome } = call;
  if (!event || !answer) return [];
  if (!report) return ["its report never came"];
  const { sent, failed, at } = report;
  if (at > answer.at + facts.settings.timeout) return [`its report came at ${at}`];
  const count = sent + failed.length;
  // The report of a repeated event covers only the clients that still wait for it.
  const coversAll = outcome?.repeated === undefined ? isOnlyCall : !outcome.repeated;
  if (coversAll ? count !== answer.clients : count > (answer.clients ?? 0))
    return [`its answer counts ${answer.clients} clients, and its report ${sent} sent and ${failed.length} failed`];
  const received = instance.attempts.filter(
    (attempt) => (deliveryTime(attempt, event, "sent", facts) ?? Infinity) <= at,
  ).length;
  if (sent > received) return [`its report says ${sent} sent, and ${received} clients received it`];
  if (new Set(failed.map(({ connectionId }) => connectionId)).size < failed.length)
    return ["its report lists a connection twice"];
  // A stream that is behind has left a channel only when it has what was published before, and counts until then.
  if (event.channels.includes(JOINED)) return [];
  if (!facts.isImmediate || outcome?.answeredAt === undefined) return [];
  const { timeout } = facts.settings;
  const { answeredAt, repeated } = outcome;
  const faultsAtAppend = (): string[] =>
    findReportFaults(report, answer.at, audienceAtAppend(call, event, facts), event, (event.at ?? 0) + timeout, facts);
  if (!repeated) return faultsAtAppend();
  const waiting = waitingMembers(audienceAtAnswer(call, facts), event, answeredAt, facts);
  const faults = findReportFaults(report, answer.at, waiting, event, answeredAt + timeout, facts);
  return mayHaveEarlierReport(call, event, calls) && faultsAtAppend().length === 0 ? [] : faults;
}

/**
 * Whether a repeated event may already have a report: one begun when it was appended, for a publisher that waits for an event of these
 * channels.
 */
const mayHaveEarlierReport = (call: PublishCall, event: PublishedEvent, calls: readonly PublishCall[]): boolean =>
  call.wantsReport &&
  call.outcome?.repeated === true &&
  calls.some(
    ({ instance, channels, wantsReport, at, outcome }) =>
      wantsReport &&
      instance === call.instance &&
      String(channels) === String(call.channels) &&
      at <= (event.at ?? 0) &&
      (outcome?.answeredAt ?? Infinity) >= (call.outcome?.answeredAt ?? 0),
  );
