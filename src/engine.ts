import type { Deadlines } from "./deadlines.ts";
import type { Follower, Log } from "./log.ts";

/**
 * Where events get their position and are kept. One contract joins history and fan-out, so that there is no seam between them.
 *
 * An engine
 * - MUST give positions in one total order and MUST keep the order of the calls of one process;
 * - MUST call `follower.appended` for every event of a subscribed channel, in order, before the publisher is told;
 * - MUST NOT give a position of one epoch twice, and MUST begin a new epoch where it cannot prove that the log continues;
 * - MUST reject at once, and not retry, what it cannot append; a `BrokerError` is passed on to the publisher as it is;
 * - MAY forget what retention does not keep. What it forgets it MUST count in `Channel.dropped`.
 */
export interface Engine {
  /** Joins a follower. Called at the broker's first use, never at module scope. Several followers may share one engine. */
  open(follower: Follower): Session;
}

/** What became of an append. */
export interface Appended {
  readonly seq: number;
  /** Nothing was appended: an event with this key was before, at this position. */
  readonly repeated: boolean;
}

/** What one broker has of an engine. */
export interface Session {
  /** What this process holds of the log. */
  readonly log: Log;
  /** `down` while nothing can be appended. @default "up" */
  readonly state?: "up" | "down";
  /**
   * Appends an event to the channels of `keys`. `text` is its wire form without an id. The answer is not a promise where the engine is
   * done at once. With a `nonce` the event is appended once within a window that the engine states; a nonce that comes back with another
   * event MUST be refused with `key-reused`. MUST reject with `engine-down` what was not appended because the engine is away, and with
   * `publish-outcome-unknown` what may have been.
   */
  append(keys: readonly string[], text: string, nonce?: string): Appended | Promise<Appended>;
  /**
   * MUST NOT resolve before every later event of these channels is certain to come to `follower.appended`. Counted: each call is
   * taken back by one of `unsubscribe`, unless it rejects. Both are absent where every follower is told of every event.
   */
  subscribe?(keys: readonly string[]): Promise<void> | undefined;
  unsubscribe?(keys: readonly string[]): void;
  /**
   * Has the names that the broker remembers for a while outlive the process: it fills `deadlines` with what was remembered under `kind`, and
   * keeps what is added to it. Absent where nothing outlives the process.
   */
  keep?(kind: "barred" | "lingering", deadlines: Deadlines): void;
  /** Leaves the engine; nothing is called any more. */
  close(): void;
}
