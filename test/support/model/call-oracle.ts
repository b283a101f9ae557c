import type { Told } from "../oracle/oracle.ts";
import type { Call } from "./publisher.ts";
import { fateOf, judgeMembers, type Member, membersAtAnswer, membersAtAppend, waitersOf } from "./report-oracle.ts";
import type { Visit } from "./visit.ts";
import type { Facts } from "./visit-oracle.ts";

// What a publisher may expect: that what it was told of an event is so.

/** The longest that a publisher is held back, in milliseconds. */
const LONGEST_HOLD = 50;
/** What may be refused because of the engine. */
const TROUBLES = ["engine-down", "publish-outcome-unknown"];

/** What the oracle has to know of the engine. */
export interface EngineFacts extends Facts {
  /** What a process knows of its clients another one that takes its place knows as well. */
  readonly isKept: boolean;
  /** It may refuse, and lose an answer. */
  readonly fails: boolean;
}

/** What is wrong with what publishers were told. */
export function judgeCalls(calls: readonly Call[], facts: EngineFacts): string[] {
  const faults: string[] = [];
  const lasts = new Map<Call["instance"], number>();
  for (const call of calls) {
    const there = facts.published.filter(({ data }) => data === call.data);
    const isOnce = calls.every((other) => other === call || other.data !== call.data);
    const name = (fault: string): string => `"${call.data.slice(0, 12)}" at ${call.at}: ${fault}`;
    faults.push(...[...judgeAnswer(call, calls, there, facts), ...judgeOnce(call, there, facts)].map(name));
    const { wantsReport, answer } = call;
    if (wantsReport && answer?.id) {
      // Sent again when its key was forgotten, it is there twice.
      const event = there.find(({ seq }) => seq === facts.place(answer.id ?? ""));
      faults.push(...judgeReport(call, calls, isOnce, event, facts).map(name));
    }
    // What is sent more than once has the place of the first time.
    const [{ seq } = { seq: 0 }] = isOnce ? there : [];
    const last = lasts.get(call.instance) ?? 0;
    if (seq > 0 && seq < last) faults.push(name(`it is at ${seq}, and what was published before at ${last}`));
    lasts.set(call.instance, Math.max(seq, last));
  }
  return faults;
}

/** What was said to be published is there, where it was said to be; what was refused is not, and was refused for a reason. */
function judgeAnswer(call: Call, calls: readonly Call[], there: readonly Told[], facts: EngineFacts): string[] {
  const { answer, isLate, recipient, instance, asked } = call;
  if (!answer) return ["it was never answered"];
  if (answer.code !== undefined) {
    const others = calls.filter((other) => other !== call && other.data === call.data);
    const isUnknown = answer.code === "publish-outcome-unknown";
    if (there.length > 0 && others.length === 0 && !isUnknown) return [`it is there, and was refused: ${answer.code}`];
    if (answer.code === "closed") return isLate ? [] : ["it was refused as closed"];
    if (answer.code === "unknown-client")
      return recipient !== undefined && !(facts.isHere && existence(call, facts) === "certain")
        ? []
        : ["it was refused, and its client exists"];
    const mayFail = facts.fails || instance.closing !== undefined;
    return mayFail && TROUBLES.includes(answer.code) ? [] : [`it was refused: ${answer.code}`];
  }
  const event = there.find(({ seq }) => seq === facts.place(answer.id ?? ""));
  if (!event) return [`it is said to be at ${answer.id}, and is not`];
  if (isLate) return ["it was taken, and the broker was closing"];
  if (String(event.channels) !== String(call.channels)) return [`it went to ${event.channels}`];
  if (facts.isHere && !facts.isKept && recipient !== undefined && existence(call, facts) === "none")
    return ["it was taken, and its client is unknown"];
  if (!facts.isHere || asked?.answeredAt === undefined) return [];
  const fault = judgeClients(call, event, calls, facts);
  if (fault.length > 0) return fault;
  const held = answer.at - asked.answeredAt;
  if (held > LONGEST_HOLD) return [`its publisher was held back for ${held} ms`];
  const isFast = instance.visits.every((visit) => !isBlocked(visit, answer.at));
  return held > 0 && isFast ? [`its publisher was held back for ${held} ms, and everybody reads`] : [];
}

/** How many clients it is said to be for. With a report that is counted when it is appended, and else when the engine answers. */
function judgeClients(call: Call, event: Told, calls: readonly Call[], facts: EngineFacts): string[] {
  const clients = call.answer?.clients ?? 0;
  const { wantsReport, asked } = call;
  const isAtAppend = wantsReport && !asked?.repeated;
  const isIn = (members: readonly Member[]): boolean =>
    clients >= members.filter(({ isSure }) => isSure).length && clients <= members.length;
  const members = isAtAppend ? membersAtAppend(call, event, facts) : membersAtAnswer(call, facts);
  if (isIn(members)) return [];
  if (mayBeReported(call, event, calls) && isIn(membersAtAppend(call, event, facts))) return [];
  const sure = members.filter(({ isSure }) => isSure).length;
  return [`it is said to be for ${clients} clients, and is for ${sure} to ${members.length}`];
}

/** Each event is appended once, unless its key was forgotten. */
function judgeOnce({ key, isAgain }: Call, there: readonly Told[], { setting }: Facts): string[] {
  if (isAgain) return [];
  const early = there.some((event, index) => {
    const before = there[index - 1];
    return before && (key === undefined || (event.at ?? 0) < (before.at ?? 0) + setting.idempotencyWindow);
  });
  return early ? [`it was appended at ${there.map(({ at }) => at).join(", ")}`] : [];
}

/** Those who were connected and read a channel of it. */
const audienceOf = ({ clients, channels, recipient }: Call): Call["clients"] =>
  clients.filter((client) =>
    recipient === undefined
      ? channels[0] === "fanwire-common" || client.channels.some((name) => channels.includes(name))
      : client.clientId === recipient,
  );

/** Whether its recipient was connected, or not long ago. Of what happened in the same millisecond nobody knows what came first. */
function existence(call: Call, { setting }: Facts): "certain" | "possible" | "none" {
  const { at, instance, recipient } = call;
  if (audienceOf(call).length > 0) return "certain";
  const lingering = instance.visits.filter(
    ({ plan, gone }) =>
      plan.id === recipient && gone !== undefined && gone.at <= at && gone.at + setting.inboxLinger > at,
  );
  if (lingering.length === 0) return "none";
  return lingering.some(({ registered }) => (registered?.at ?? at) < at) ? "certain" : "possible";
}

/** Whether somebody was not asking for anything at a time, or until then. */
function isBlocked({ registered, gone, socket }: Visit, at: number): boolean {
  if (!registered || registered.at > at || (gone && gone.at < at)) return false;
  const { given = [], wanted = [], over } = socket ?? {};
  const isStuck = given.some((chunk, index) => chunk.at < at && (wanted[index + 1] ?? Infinity) >= at);
  return isStuck || given.length === 0 || over?.at === at;
}

/** Its report is about each of its clients once, and true. */
function judgeReport(
  call: Call,
  calls: readonly Call[],
  isOnce: boolean,
  event: Told | undefined,
  facts: EngineFacts,
): string[] {
  const { report, answer, instance, asked } = call;
  if (!event || !answer) return [];
  if (!report) return ["its report never came"];
  const { sent, failed, at } = report;
  if (at > answer.at + facts.setting.timeout) return [`its report came at ${at}`];
  const count = sent + failed.length;
  // Of what is sent again it is about those who still wait for it.
  const isAboutAll = asked?.repeated === undefined ? isOnce : !asked.repeated;
  if (isAboutAll ? count !== answer.clients : count > (answer.clients ?? 0))
    return [`it is for ${answer.clients} clients, ${sent} of them sent and ${failed.length} failed`];
  const given = instance.visits.filter((visit) => (fateOf(visit, event, "sent", facts) ?? Infinity) <= at).length;
  if (sent > given) return [`it was sent to ${sent} clients, and ${given} were given it`];
  if (new Set(failed.map(({ connectionId }) => connectionId)).size < failed.length) return ["a client failed twice"];
  if (!facts.isHere || asked?.answeredAt === undefined) return [];
  const { timeout } = facts.setting;
  const { answeredAt } = asked;
  const atAppend = (): string[] =>
    judgeMembers(report, answer.at, membersAtAppend(call, event, facts), event, (event.at ?? 0) + timeout, facts);
  if (!asked.repeated) return atAppend();
  const waiters = waitersOf(membersAtAnswer(call, facts), event, answeredAt, facts);
  const faults = judgeMembers(report, answer.at, waiters, event, answeredAt + timeout, facts);
  return mayBeReported(call, event, calls) && atAppend().length === 0 ? [] : faults;
}

/** What was there when this was asked for may have a report by then: begun at its append for somebody who waits for an event of these channels. */
const mayBeReported = (call: Call, event: Told, calls: readonly Call[]): boolean =>
  call.wantsReport &&
  call.asked?.repeated === true &&
  calls.some(
    ({ instance, channels, wantsReport, at, asked }) =>
      wantsReport &&
      instance === call.instance &&
      String(channels) === String(call.channels) &&
      at <= (event.at ?? 0) &&
      (asked?.answeredAt ?? Infinity) >= (call.asked?.answeredAt ?? 0),
  );
