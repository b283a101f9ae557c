// An item that the log does not hold: it is sent once, between the events around its position, and has no id.

/** An ephemeral event, an event for one connection, or a control event. */
export interface Transient {
  readonly isTransient: true;
  /** The whole event in its wire form. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The position after which it is sent. */
  readonly seq: number;
  /** The keys of its channels. Empty for a control event, which does not count as an event. */
  readonly keys: readonly string[];
  /** Epoch milliseconds after which it is dropped. Absent if it waits for as long as the connection lasts. */
  readonly expiresAt?: number;
}

/** Whether an item of a batch is transient. */
export const isTransient = (item: object): item is Transient => "isTransient" in item;
