// Idempotency keys: an event that is published again under its key is appended once.
import { BrokerError } from "../base/errors.ts";
import { ExpiringMap } from "../base/expiring-map.ts";
import { checkNumbers } from "../base/validate.ts";
import { publisherOf } from "../event/channel-key.ts";
import type { AppendResult } from "./engine.ts";

/** Events that were appended within the window, by idempotency key: the position, and a fingerprint that differs for other events. */
export type SeenEvents = ExpiringMap<{ readonly seq: number; readonly print: string }>;

/** The idempotency keys of one log, in the memory of this process. */
export interface IdempotencyWindow {
  /**
   * Calls `append`, which assigns a position and returns it. Instead, an event whose key was used within the window is not appended again: the
   * result is the position of the first time, with `repeated: true`. A key whose `append` throws is not remembered.
   *
   * @throws {@link BrokerError} `key-reused` if the key was used for another event, with other channels or another text
   */
  appendOnce(
    keys: readonly string[],
    text: string,
    idempotencyKey: string | undefined,
    append: () => number,
  ): AppendResult;
  /**
   * Puts back a key that was stored: the position of its event, the {@link eventFingerprint} of that event, and how many milliseconds ago it was
   * appended. A key that is older than the window is not remembered.
   */
  remember(idempotencyKey: string, seq: number, fingerprint: string, ageMs: number): void;
}

/**
 * Creates the idempotency window of an engine whose log is in this process. A key is remembered for `windowMs` milliseconds after its first
 * use; 0 remembers none. At most 100,000 keys are remembered; beyond that, the publisher that has the most loses its oldest one.
 *
 * An engine whose log outlives the process stores keys in the same transaction as the events, with an {@link eventFingerprint} for each, and
 * puts them back with `remember`.
 *
 * @throws `RangeError` if `windowMs` is not a number, 0 or more
 */
export function createIdempotencyWindow(epoch: string, windowMs: number = 300_000): IdempotencyWindow {
  checkNumbers("createIdempotencyWindow()", { windowMs }, 0);
  const seen: SeenEvents = new ExpiringMap();
  return {
    appendOnce: (keys, text, idempotencyKey, append) =>
      appendOnce(epoch, seen, windowMs, keys, text, idempotencyKey, append),
    remember: (idempotencyKey, seq, print, ageMs) =>
      seen.set(idempotencyKey, windowMs - ageMs, { seq, print }, publisherOf(idempotencyKey)),
  };
}

/** Appends an event, as {@link IdempotencyWindow.appendOnce} does. `seen` holds the keys. */
export function appendOnce(
  epoch: string,
  seen: SeenEvents,
  windowMs: number,
  keys: readonly string[],
  text: string,
  idempotencyKey: string | undefined,
  append: () => number,
): AppendResult {
  if (idempotencyKey === undefined) return { epoch, seq: append(), repeated: false };
  const print = eventFingerprint(keys, text);
  const before = seen.get(idempotencyKey);
  if (isRepeated(before, print)) return { epoch, seq: before.seq, repeated: true };
  const seq = append();
  seen.set(idempotencyKey, windowMs, { seq, print }, publisherOf(idempotencyKey));
  return { epoch, seq, repeated: false };
}

/**
 * Whether an event was appended before under its key. `before` is what the key stands for, and `print` the fingerprint of the event.
 *
 * @throws {@link BrokerError} `key-reused` if the key stands for another event
 */
export function isRepeated<Seen extends { readonly print: string }>(
  before: Seen | undefined,
  print: string,
): before is Seen {
  if (before && before.print !== print)
    throw new BrokerError("key-reused", "Event refused: its key was used before, for another event.");
  return before !== undefined;
}

/**
 * Returns a short text that is the same for the same event, whatever the order of its channels, and differs for any other event: 64 bits of two
 * multiplicative hashes, and the length. It does not resist somebody who constructs two events with one fingerprint on purpose.
 */
export function eventFingerprint(keys: readonly string[], text: string): string {
  const event = `${[...keys].sort().join("\n")}\n${text}`;
  let a = 0x811c9dc5;
  let b = 0x9e3779b9;
  for (let index = 0; index < event.length; index++) {
    const unit = event.charCodeAt(index);
    a = Math.imul(a ^ unit, 0x01000193);
    b = Math.imul(b ^ unit, 0x85ebca6b);
    b ^= b >>> 13;
  }
  return `${a} ${b} ${event.length}`;
}
