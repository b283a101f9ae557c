// An item that the log does not hold: it is sent once, between the events around its position, and has no id.
import { BrokerError } from "../base/errors.ts";
import { encode } from "../event/sse-format.ts";
import type { Log } from "./log.ts";

/** An ephemeral event, an event for one connection, or a control event. */
export interface Transient {
  readonly isTransient: true;
  /** The whole event in its wire form. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The position after which it is sent. */
  readonly seq: number;
  /** The keys of its channels. Empty for a control event, which does not count as an event. */
  readonly keys: readonly string[];
  /** Called when the reader has everything up to `seq`, before the item is sent. Nothing behind it is read before that. */
  readonly onReached?: () => void;
  /** Epoch milliseconds after which it is dropped. Absent if it waits for as long as the connection lasts. */
  readonly expiresAt?: number;
}

/** Whether an item of a batch is transient. */
export const isTransient = (item: object): item is Transient => "isTransient" in item;

/** Milliseconds for which an ephemeral event waits for a connection that is taking something else. */
const EPHEMERAL_MS = 250;

/** Creates an ephemeral event that is published now, behind the position `seq`. */
export const ephemeralEvent = (keys: readonly string[], bytes: Uint8Array<ArrayBuffer>, seq: number): Transient => ({
  isTransient: true,
  bytes,
  seq,
  keys,
  expiresAt: Date.now() + EPHEMERAL_MS,
});

/** Sends an event to all listeners of a log, which does not hold it. `text` is its wire form. */
export function sendEphemeral({ listeners }: Pick<Log, "listeners">, keys: readonly string[], text: string): void {
  const bytes = encode(text);
  for (const listener of listeners) listener.onEphemeral?.(keys, bytes);
}

/** Refuses an ephemeral event, which the engine or its store cannot send. @throws {@link BrokerError} `engine-refused` */
export function refuseEphemeral(): never {
  throw new BrokerError("engine-refused", "Event refused: this engine cannot send ephemeral events; store it instead.");
}
