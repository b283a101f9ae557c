import type { Told } from "../oracle/oracle.ts";
import type { Instance } from "./instance.ts";
import type { Item } from "./items.ts";
import type { Call } from "./publisher.ts";
import type { Reader } from "./reader.ts";

/** What happened, for people to read. */
export interface Happened {
  readonly published: readonly Told[];
  readonly calls: readonly Call[];
  readonly instances: readonly Instance[];
  readonly readers: readonly Reader[];
  readonly place: (id: string) => number;
}

/** An account of a history: what was published, what publishers were told, and what each connection was given when. */
export function account({ published, calls, instances, place }: Happened): string[] {
  const show = (item: Item): string => {
    if (item.type === "gap") {
      const after = item.after === null ? "?" : place(item.after);
      return `gap of ${item.channels} after ${after} to ${place(item.through)}, @${place(item.id)}`;
    }
    return item.id === undefined ? item.type : `${item.type} @${place(item.id)}`;
  };
  return [
    ...published.map(({ seq, at, channels, data }) => `@${seq} at ${at} to ${channels}: "${data.slice(0, 12)}"`),
    ...calls.map(({ at, instance, data, answer, report }) => {
      const told = report ? `, at ${report.at} reported ${JSON.stringify(report)}` : "";
      const answered = answer && `at ${answer.at} ${answer.code ?? `${answer.id}, for ${answer.clients}`}`;
      return `call at ${at} of process ${instance.process}, "${data.slice(0, 12)}": ${answered}${told}`;
    }),
    ...instances.flatMap(({ process, visits }) =>
      visits.flatMap((visit, index) => {
        const { plan, asked, calledAt, status, registered, gone, socket } = visit;
        const head = `process ${process}, visit ${index}, ${plan.id}, ${asked}: called at ${calledAt}, ${status}`;
        return [
          `${head}, registered at ${registered?.at}, gone at ${gone?.at} (${gone?.reason})`,
          ...(socket?.given ?? []).map(
            ({ at, items }, chunk) =>
              `  asked at ${socket?.wanted[chunk]}, given at ${at}: ${items.map(show).join(", ")}`,
          ),
          `  ${socket?.over?.how} at ${socket?.over?.at}`,
        ];
      }),
    ),
  ];
}
