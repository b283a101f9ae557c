import { BrokerError } from "../base/errors.ts";
import type { ExpiringMap } from "../base/expiring-map.ts";
import { publisherOf } from "../event/channel-key.ts";
import type { AppendResult } from "./engine.ts";

/** The keys of events that were appended not long ago: where each event is, and what tells it from another. */
export type SeenEvents = ExpiringMap<{ readonly seq: number; readonly print: string }>;

/** Appends what was not appended under this key within `idempotencyWindow` milliseconds. @throws {@link BrokerError} `key-reused` */
export function appendOnce(
  epoch: string,
  known: SeenEvents,
  idempotencyWindow: number,
  keys: readonly string[],
  text: string,
  idempotencyKey: string | undefined,
  append: () => number,
): AppendResult {
  if (idempotencyKey === undefined) return { epoch, seq: append(), repeated: false };
  const print = fingerprint(`${[...keys].sort().join("\n")}\n${text}`);
  const before = known.get(idempotencyKey);
  if (before && before.print !== print)
    throw new BrokerError("key-reused", "Event refused: its key was used before, for another event.");
  if (before) return { epoch, seq: before.seq, repeated: true };
  const seq = append();
  known.set(idempotencyKey, idempotencyWindow, { seq, print }, publisherOf(idempotencyKey));
  return { epoch, seq, repeated: false };
}

/** Tells two texts apart that are not made to be taken for each other: 64 bits of two multiplicative hashes, and the length. */
export function fingerprint(text: string): string {
  let a = 0x811c9dc5;
  let b = 0x9e3779b9;
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    a = Math.imul(a ^ unit, 0x01000193);
    b = Math.imul(b ^ unit, 0x85ebca6b);
    b ^= b >>> 13;
  }
  return `${a} ${b} ${text.length}`;
}
