// The outcomes that must occur in a large number of random histories. Without them the histories would not test what they should.
import type { ConnectionAttempt } from "./connection-attempt.ts";
import type { History } from "./history.ts";
import type { PublishCall } from "./publisher.ts";
import type { Trace } from "./trace.ts";

/** Every kind of step. */
const STEPS = [
  ...["publish", "republish", "publish-to", "read", "read-and-drop", "stall", "disconnect", "restart", "turn", "pass"],
  ...["subscribe", "unsubscribe", "ephemeral"],
  ...["cancel", "abort", "unnoticed", "never noticed"].map((how) => `drop: ${how}`),
  ...["delay", "refuse", "lose-reply", "feed", "commands", "silence", "lose-messages", "new-epoch", "lose-log"],
];

/**
 * Reasons for which a connection closes and a report says that an event failed. "closing" is not among them: a connection that is drained
 * receives the event, unless the report has already said "late".
 */
const REASONS = ["client-left", "timeout", "disconnected", "expired", "max-age", "replaced"];

const OUTCOMES = [
  ...["live", "earliest", "latest", "newest two", "foreign"].map((start) => `a client starts: ${start}`),
  ...["a client reconnects", "an id has two connections", "a client id is barred", "a client id is taken"],
  ...["connecting", "behind", "reading"].map((state) => `a client drops while ${state}`),
  ...[
    "a client is blocked and reads on",
    "a client is blocked for a timeout and reads on",
    "a client is blocked for a timeout twice and reads on",
    "a client is disconnected after several timeouts",
    "a part of a chunk is read",
  ],
  ...["an outage is bridged without a gap", "a client receives a gap", "a gap of unknown start is received"],
  ...["a listener receives an event", "a listener receives a gap"],
  ...["an event reaches a reader through several channels"],
  ...["an event of an inbox reaches two connections", "an event of an inbox waits for its client"],
  ...["a heartbeat is sent", "a position is sent", "backpressure holds a publisher back"],
  ...["a key is used again", "answers come out of order", "a vanished event is found"],
  ...["engine-down", "publish-outcome-unknown", "unknown-client", "closed"].map((code) => `a publish fails: ${code}`),
  ...[...REASONS, "closing"].map((reason) => `a connection closes: ${reason}`),
  ...["sent", "late", "lost", ...REASONS].map((fate) => `a report says ${fate}`),
  ...["a report of a repeated event says sent", "a client connects before a publish with a report is answered"],
  ...["with an end event", "without one", "left"].map((how) => `a stream ends: ${how}`),
  ...["a closing broker drains a connection", "a closing broker aborts a connection"],
];

export const EXPECTED_OUTCOMES: readonly string[] = [...STEPS, ...OUTCOMES];

/** A client that waits receives an event later than this, in milliseconds, only if the event's message vanished. */
const LATE_MS = 1_000;

/** Returns which of the outcomes occurred in a history. */
export function outcomesOf({ steps }: History, trace: Trace): Set<string> {
  const outcomes = new Set<string>(steps.map((step) => (step.do === "drop" ? `drop: ${step.how}` : step.do)));
  const add = (isSo: unknown, outcome: string): void => {
    if (isSo) outcomes.add(outcome);
  };
  for (const call of trace.calls) addCall(call, trace, add);
  for (const { attempts } of trace.instances) for (const attempt of attempts) addAttempt(attempt, trace, add);
  for (const { plan, channels, items } of trace.readers) {
    const reader = plan.kind === "listener" ? "a listener" : "a client";
    for (const item of items) {
      add(item.type === "gap", `${reader} receives a gap`);
      add(item.type === "gap" && item.after === null, "a gap of unknown start is received");
      add(item.type === "event", `${reader} receives an event`);
    }
    const received = new Set(items.map(({ id }) => id));
    for (const { seq, channels: all } of trace.published)
      add(
        all.filter((name) => channels.includes(name)).length > 1 && received.has(`x-${seq}`),
        "an event reaches a reader through several channels",
      );
  }
  return outcomes;
}

type Add = (isSo: unknown, outcome: string) => void;

function addCall(call: PublishCall, { calls, readers }: Trace, add: Add): void {
  const { answer, report, recipient, data, instance, at } = call;
  if (!answer) return;
  const others = calls.filter((other) => other !== call && other.instance === instance);
  add(answer.code, `a publish fails: ${answer.code}`);
  add(
    call.isRepeat && answer.id && calls.some((other) => other.answer?.id === answer.id && other !== call),
    "a key is used again",
  );
  add(
    others.some((other) => other.at < at && other.answer && other.answer.at > answer.at),
    "answers come out of order",
  );
  add(answer.id && answer.at > at && answer.at <= at + 50 && !call.isRepeat, "backpressure holds a publisher back");
  add(report && report.sent > 0, "a report says sent");
  add(report && report.sent > 0 && call.isRepeat, "a report of a repeated event says sent");
  add(
    report && instance.attempts.some(({ registered }) => registered && registered.at > at && registered.at < answer.at),
    "a client connects before a publish with a report is answered",
  );
  for (const { reason } of report?.failed ?? []) add(true, `a report says ${reason}`);
  if (recipient === undefined || answer.clients === undefined) return;
  add(answer.clients > 1, "an event of an inbox reaches two connections");
  const isRead = readers.some(({ items }) => items.some((item) => item.type === "event" && item.data === data));
  add(answer.clients === 0 && isRead, "an event of an inbox waits for its client");
}

function addAttempt(attempt: ConnectionAttempt, { instances, published, rankOf }: Trace, add: Add): void {
  const { plan, status, registered, closed, socket, instance, droppedWhile, isResumed } = attempt;
  add(status === 204, "a client id is barred");
  add(status === 409, "a client id is taken");
  add(droppedWhile, `a client drops while ${droppedWhile}`);
  if (!registered || !closed || !socket) return;
  add(true, isResumed ? "a client reconnects" : `a client starts: ${plan.start}`);
  add(true, `a connection closes: ${closed.reason}`);
  const hasEndEvent = socket.chunks.at(-1)?.items.at(-1)?.type === "end";
  const isClosed = socket.ended?.how === "closed";
  add(true, `a stream ends: ${isClosed ? (hasEndEvent ? "with an end event" : "without one") : socket.ended?.how}`);
  add(socket.partialReads, "a part of a chunk is read");
  const isOpenToo = (other: ConnectionAttempt): boolean =>
    other !== attempt &&
    other.plan.id === plan.id &&
    (other.registered?.at ?? Infinity) < closed.at &&
    (other.closed?.at ?? 0) > registered.at;
  add(
    instances.some(({ attempts }) => attempts.some(isOpenToo)),
    "an id has two connections",
  );
  const { tolerance, timeout } = instance.settings;
  add(closed.reason === "timeout" && tolerance > 1, "a client is disconnected after several timeouts");
  const { chunks, requestedAt } = socket;
  const items = chunks.flatMap((chunk) => chunk.items);
  const stalls = chunks.filter(({ at }, index) => (requestedAt[index + 1] ?? 0) > at + timeout).length;
  add(stalls > 0, "a client is blocked for a timeout and reads on");
  add(stalls > 1, "a client is blocked for a timeout twice and reads on");
  add(
    items.some(({ type }) => type === "comment"),
    "a heartbeat is sent",
  );
  add(
    items.some(({ type }) => type === "position"),
    "a position is sent",
  );
  const first = isResumed ? items.find(({ type }) => type === "event" || type === "gap") : undefined;
  add(first?.type === "event" && rankOf(first.id) <= registered.head, "an outage is bridged without a gap");
  const appendedAt = new Map(published.map(({ seq, at = 0 }) => [seq, at]));
  for (const [index, { at, items }] of chunks.entries()) {
    const event = items.find(({ type }) => type === "event");
    const since = event?.id === undefined ? Infinity : (appendedAt.get(rankOf(event.id)) ?? Infinity);
    const requested = requestedAt[index];
    add(index > 0 && (requested ?? Infinity) < since && at - since >= LATE_MS, "a vanished event is found");
    add(index > 0 && event && (requested ?? 0) > since + LATE_MS, "a client is blocked and reads on");
    add(closed.reason === "closing" && at > closed.at && event, "a closing broker drains a connection");
  }
  add(closed.reason === "closing" && isClosed && !hasEndEvent, "a closing broker aborts a connection");
}
