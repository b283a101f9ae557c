// Where a reader starts in a run, and where its events end in a chunk.
import { BrokerError, quote } from "../base/errors.ts";
import type { RunRecord } from "../engine/run-store.ts";
import { parsePosition } from "../event/position.ts";
import { endOfEvent } from "../event/sse-format.ts";

/** Returns the number of the event after which a reader starts. @throws {@link BrokerError} `bad-request` */
export function positionOf({ generation, events }: RunRecord, id: string | undefined): number {
  if (id === undefined || id === "-1") return 0;
  if (id === "now") return events;
  const position = parsePosition(id);
  if (position?.epoch !== generation || position.seq > events)
    throw new BrokerError(
      "bad-request",
      `Run not read: ${quote(id)} is not the id of one of its events. Start at the beginning, without an id.`,
    );
  return position.seq;
}

/** Splits whole events. */
export function* splitFrames(bytes: Uint8Array): Generator<Uint8Array> {
  for (let start = 0, end = 0; start < bytes.length; start = end) {
    end = endOfEvent(bytes, start);
    yield bytes.subarray(start, end);
  }
}
