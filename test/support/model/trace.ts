// The record of one simulated history, and its description for the message of a failed test.
import type { PublishedEvent } from "../oracle/oracle.ts";
import type { ConnectionAttempt } from "./connection-attempt.ts";
import type { Instance } from "./instance.ts";
import type { Item } from "./items.ts";
import type { PublishCall } from "./publisher.ts";
import type { Reader } from "./reader.ts";

/** Everything that happened in a simulated history. */
export interface Trace {
  readonly published: readonly PublishedEvent[];
  readonly calls: readonly PublishCall[];
  readonly instances: readonly Instance[];
  readonly readers: readonly Reader[];
  readonly rankOf: (id: string) => number;
}

/** Describes a trace, one line an item: each event, each publish call with its answer, and each connection with its chunks. */
export function describeTrace({ published, calls, instances, rankOf }: Trace): string[] {
  return [
    ...published.map(({ seq, at, channels, data }) => `@${seq} at ${at} to ${channels}: "${data.slice(0, 12)}"`),
    ...calls.map(describeCall),
    ...instances.flatMap(({ process, attempts }) =>
      attempts.flatMap((attempt, index) => describeAttempt(attempt, `process ${process}, connection ${index}`, rankOf)),
    ),
  ];
}

function describeCall({ at, instance, data, answer, report }: PublishCall): string {
  const answered = answer && `at ${answer.at} ${answer.code ?? `${answer.id}, for ${answer.clients}`}`;
  const reported = report ? `, at ${report.at} reported ${JSON.stringify(report)}` : "";
  return `call at ${at} of process ${instance.process}, "${data.slice(0, 12)}": ${answered}${reported}`;
}

function describeAttempt(attempt: ConnectionAttempt, name: string, rankOf: Trace["rankOf"]): string[] {
  const { plan, lastEventId, calledAt, status, registered, closed, socket } = attempt;
  return [
    `${name}, ${plan.id}, ${lastEventId}: called at ${calledAt}, ${status}, registered at ${registered?.at}, ` +
      `closed at ${closed?.at} (${closed?.reason})`,
    ...(socket?.chunks ?? []).map(({ at, items }, index) => {
      const described = items.map((item) => describeItem(item, rankOf)).join(", ");
      return `  requested at ${socket?.requestedAt[index]}, received at ${at}: ${described}`;
    }),
    `  ${socket?.ended?.how} at ${socket?.ended?.at}`,
  ];
}

function describeItem(item: Item, rankOf: Trace["rankOf"]): string {
  if (item.type === "gap") {
    const after = item.after === null ? "?" : rankOf(item.after);
    return `gap of ${item.channels} after ${after} through ${rankOf(item.through)}, @${rankOf(item.id)}`;
  }
  return item.id === undefined ? item.type : `${item.type} @${rankOf(item.id)}`;
}
