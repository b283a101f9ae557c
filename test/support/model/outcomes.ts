import type { Happened } from "./account.ts";
import type { History } from "./history.ts";
import type { Call } from "./publisher.ts";
import type { Visit } from "./visit.ts";

// What has to happen in some of many histories, or they are no test of it.

/** Every kind of step, in the words of a history. */
const STEPS = [
  ...["publish", "again", "send", "read", "glimpse", "stall", "disconnect", "restart", "turn", "pass"],
  ...["cancel", "abort", "unnoticed", "never noticed"].map((how) => `drop: ${how}`),
  ...["delay", "refuse", "lose-answer", "feed", "commands", "silence", "swallow", "anew", "lose"],
];

/** Who is given the rest before it ends has what a report is about, or was late before: none says "closing". */
const REASONS = ["client-left", "timeout", "disconnected", "expired", "max-age", "replaced"];

/** What may come of them. */
const OUTCOMES = [
  ...["live", "earliest", "foreign"].map((beginning) => `a client begins ${beginning}`),
  ...["a client comes back", "an id has two connections", "a client is barred", "an id is taken"],
  ...["connecting", "behind", "reading"].map((what) => `a client is dropped while ${what}`),
  ...[
    "a client stalls and reads on",
    "a client stalls for a timeout and reads on",
    "a client does so twice",
    "a client is given up for several timeouts",
    "a part of a chunk is read",
  ],
  ...["an outage is bridged without a gap", "a gap is told", "a gap of unknown beginning is told"],
  ...["a listener hears an event", "a listener hears of a gap"],
  ...["an event comes by several channels", "a message goes to two connections", "a message waits for its client"],
  ...["a heartbeat is sent", "a position is told", "a publisher is held back"],
  ...["a key is used again", "answers come out of order", "a vanished event is found"],
  ...["engine-down", "publish-outcome-unknown", "unknown-client", "closed"].map(
    (code) => `a publisher is told ${code}`,
  ),
  ...[...REASONS, "closing"].map((reason) => `a client is gone: ${reason}`),
  ...["sent", "late", "lost", ...REASONS].map((fate) => `a report says ${fate}`),
  ...["a report on what is sent again says sent", "a client comes before a report is answered"],
  ...["closed", "errored", "left"].map((how) => `a stream is ${how}`),
  ...["a closing broker hands on the rest", "a closing broker cuts a client off"],
];

export const WANTED: readonly string[] = [...STEPS, ...OUTCOMES];

/** A vanished event is not found sooner than this, and no other is that late for who waits for it. */
const LATE = 1_000;

/** What of that there was in a history. */
export function outcomesOf({ steps }: History, happened: Happened): Set<string> {
  const there = new Set<string>(steps.map((step) => (step.do === "drop" ? `drop: ${step.how}` : step.do)));
  const add = (is: unknown, name: string): void => {
    if (is) there.add(name);
  };
  for (const call of happened.calls) addCall(call, happened, add);
  for (const { visits } of happened.instances) for (const visit of visits) addVisit(visit, happened, add);
  for (const { plan, channels, seen } of happened.readers) {
    const isListener = plan.kind === "listener";
    for (const item of seen) {
      add(item.type === "gap", isListener ? "a listener hears of a gap" : "a gap is told");
      add(item.type === "gap" && item.after === null, "a gap of unknown beginning is told");
      add(item.type === "event" && isListener, "a listener hears an event");
    }
    const came = new Set(seen.map(({ id }) => id));
    for (const { seq, channels: all } of happened.published)
      add(
        all.filter((name) => channels.includes(name)).length > 1 && came.has(`x-${seq}`),
        "an event comes by several channels",
      );
  }
  return there;
}

type Add = (is: unknown, name: string) => void;

function addCall(call: Call, { calls, readers }: Happened, add: Add): void {
  const { answer, report, recipient, data, instance, at } = call;
  if (!answer) return;
  const others = calls.filter((other) => other !== call && other.instance === instance);
  add(answer.code, `a publisher is told ${answer.code}`);
  add(
    call.isAgain && answer.id && calls.some((other) => other.answer?.id === answer.id && other !== call),
    "a key is used again",
  );
  add(
    others.some((other) => other.at < at && other.answer && other.answer.at > answer.at),
    "answers come out of order",
  );
  add(answer.id && answer.at > at && answer.at <= at + 50 && !call.isAgain, "a publisher is held back");
  add(report && report.sent > 0, "a report says sent");
  add(report && report.sent > 0 && call.isAgain, "a report on what is sent again says sent");
  add(
    report && instance.visits.some(({ registered }) => registered && registered.at > at && registered.at < answer.at),
    "a client comes before a report is answered",
  );
  for (const { reason } of report?.failed ?? []) add(true, `a report says ${reason}`);
  if (recipient === undefined || answer.clients === undefined) return;
  add(answer.clients > 1, "a message goes to two connections");
  const isRead = readers.some(({ seen }) => seen.some((item) => item.type === "event" && item.data === data));
  add(answer.clients === 0 && isRead, "a message waits for its client");
}

function addVisit(visit: Visit, { instances, published, place }: Happened, add: Add): void {
  const { plan, asked, status, registered, gone, socket, instance, droppedWhile } = visit;
  add(status === 204, "a client is barred");
  add(status === 409, "an id is taken");
  add(droppedWhile, `a client is dropped while ${droppedWhile}`);
  if (!registered || !gone || !socket) return;
  const isBack = asked !== undefined && !asked.startsWith("elsewhere");
  add(true, isBack ? "a client comes back" : `a client begins ${plan.beginning}`);
  add(true, `a client is gone: ${gone.reason}`);
  add(true, `a stream is ${socket.over?.how}`);
  add(socket.pieces, "a part of a chunk is read");
  const isHere = (other: Visit): boolean =>
    other !== visit &&
    other.plan.id === plan.id &&
    (other.registered?.at ?? Infinity) < gone.at &&
    (other.gone?.at ?? 0) > registered.at;
  add(
    instances.some(({ visits }) => visits.some(isHere)),
    "an id has two connections",
  );
  const { tolerance } = instance.setting;
  add(gone.reason === "timeout" && tolerance > 1, "a client is given up for several timeouts");
  const { given, wanted } = socket;
  const items = given.flatMap(({ items }) => items);
  const stalls = given.filter(({ at }, index) => (wanted[index + 1] ?? 0) > at + instance.setting.timeout).length;
  add(stalls > 0, "a client stalls for a timeout and reads on");
  add(stalls > 1, "a client does so twice");
  add(
    items.some(({ type }) => type === "comment"),
    "a heartbeat is sent",
  );
  add(
    items.some(({ type }) => type === "position"),
    "a position is told",
  );
  const missed = isBack ? items.find(({ type }) => type === "event" || type === "gap") : undefined;
  add(missed?.type === "event" && place(missed.id) <= registered.head, "an outage is bridged without a gap");
  const atOf = new Map(published.map(({ seq, at = 0 }) => [seq, at]));
  for (const [index, { at, items }] of given.entries()) {
    const first = items.find(({ type }) => type === "event");
    const from = first?.id === undefined ? Infinity : (atOf.get(place(first.id)) ?? Infinity);
    add(index > 0 && (wanted[index] ?? Infinity) < from && at - from >= LATE, "a vanished event is found");
    add(index > 0 && first && (wanted[index] ?? 0) > from + LATE, "a client stalls and reads on");
    add(gone.reason === "closing" && at > gone.at && first, "a closing broker hands on the rest");
  }
  add(gone.reason === "closing" && socket.over?.how === "errored", "a closing broker cuts a client off");
}
