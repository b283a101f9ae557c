import type { ExpiringMap } from "../base/expiring-map.ts";
import type { HistoryLoader, HistoryLoaderHost } from "../delivery/history-loader.ts";
import type { Position } from "../event/position.ts";
import type { EngineListener, Log } from "../log/log.ts";
import type { HistoryBounds, MaxReplay } from "../log/resume.ts";
import type { Presence, PresenceResult, ReplayPage } from "../shared-log/shared-log.ts";

/**
 * Where events get their position and are kept. One contract joins history and fan-out, so that there is no seam between them.
 *
 * An engine
 * - MUST give positions in one total order and MUST keep the order of the calls of one process;
 * - MUST call `follower.appended` for every event of a subscribed channel, in order, before the publisher is told;
 * - MUST NOT let `log.head` pass an event of a subscribed channel that the follower was not told of, by `appended` or `missed`: readers are
 *   taken to be where the head is;
 * - MUST NOT give a position of one epoch twice, and MUST begin a new epoch where it cannot prove that the log continues;
 * - MUST reject at once, and not retry, what it cannot append; a `BrokerError` is passed on to the publisher as it is;
 * - MAY forget what retention does not keep. What it forgets it MUST count in `Channel.dropped`.
 */
export interface Engine {
  /** Joins a follower. Called at the broker's first use, never at module scope. Several followers may share one engine. */
  open(follower: EngineListener): EngineSession;
}

/** What became of an append: where the event is. */
export interface AppendResult extends Position {
  /** Nothing was appended: an event with this key was before, at this position. */
  readonly repeated: boolean;
}

/** The clients of all processes that share a log. All of it is a matter of leases: what is known of a process that died is over some time later. */
export interface PresenceStore {
  /** Makes a connection known, unless its id is barred or, with `"reject"`, taken by the same subject. With `"replace"` others are told to end theirs. Should this process die, it lingers. */
  enter(presence: Presence, rule: "allow" | "reject" | "replace", linger: number): Promise<PresenceResult>;
  /** It is over; its id can be written to for `linger` milliseconds. */
  leave(presence: Presence, linger: number): void;
  isBarred(clientId: string): Promise<boolean>;
  /** Bars an id for so many milliseconds, has the other processes end its connections, and answers how many those were. */
  disconnect(clientId: string, barFor: number): Promise<number>;
}

/** What one broker has of an engine. */
export interface EngineSession {
  /** What this process holds of the log. */
  readonly log: Log;
  /** `down` while nothing can be appended. @default "up" */
  readonly state?: "up" | "down";
  /**
   * Appends an event to the channels of `keys`. `text` is its wire form without an id. The answer is not a promise where the engine is
   * done at once. With a `nonce` the event is appended once within a window that the engine states; a nonce that comes back with another
   * event MUST be refused with `key-reused`. MUST reject with `engine-down` what was not appended because the engine is away, and with
   * `publish-outcome-unknown` what may have been. An event for a `recipient` that is not known to `presences` MUST be refused with
   * `unknown-client`; where there are none, the broker has asked itself.
   */
  append(
    keys: readonly string[],
    text: string,
    idempotencyKey?: string,
    recipient?: string,
  ): AppendResult | Promise<AppendResult>;
  /**
   * MUST NOT resolve before every later event of these channels is certain to come to `follower.appended`. Counted: each call is
   * taken back by one of `unsubscribe`, unless it rejects. Both are absent where every follower is told of every event.
   */
  subscribe?(keys: readonly string[]): Promise<void> | undefined;
  unsubscribe?(keys: readonly string[]): void;
  /**
   * What is kept of these channels after a position of the log, in order, with what is needed to tell a gap: at least one event if there is one, and
   * everything up to the page's end. Absent where `log` holds all that is kept. Where it does not, `Channel.dropped` counts what this process
   * does not hold as well.
   */
  read?(keys: readonly string[], after: number): Promise<ReplayPage>;
  /** Has pages read for a broker's clients. Present if `read` is. */
  pages?(home: HistoryLoaderHost): HistoryLoader;
  /** What is kept of these channels, for who starts after a position. Present if `read` is. */
  historyBounds?(keys: readonly string[], from: number, max: MaxReplay): Promise<HistoryBounds>;
  /** The position of the newest event of all. Present if `read` is. */
  head?(): Promise<Position>;
  /** The clients of all processes. Absent where there is one. */
  readonly presence?: PresenceStore;
  /**
   * Has the names that the broker remembers for a while outlive the process: it fills `deadlines` with what was remembered under `kind`, and
   * keeps what is added to it. Absent where nothing outlives the process.
   */
  persistNames?(kind: "barred" | "lingering", deadlines: ExpiringMap): void;
  /** Leaves the engine; nothing is called any more. What was entered lingers for so many milliseconds. */
  close(linger?: number): void;
}
