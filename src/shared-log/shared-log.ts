import type { AppendResult } from "../engine/engine.ts";
import type { MaxReplay } from "../log/resume.ts";

// A log that several processes share, as one of them reaches it: what a store such as Redis has to do. All that has to do with trust
// (is anything missing, has the log begun anew, is the feed alive) is done by `Replica`, which makes an engine of it.

/** An event as it comes over the feed. */
export interface FeedEvent {
  readonly epoch: string;
  readonly seq: number;
  /** The keys of its channels, each once. */
  readonly keys: readonly string[];
  /** For each of them the position of the event before it; for a channel without a record, how far it may have had events. */
  readonly previous: readonly number[];
  /** Its wire form without an id. */
  readonly text: string;
}

/** Where the log is, said through the feed: every message before it is of a position up to `head`, every one after it is beyond. */
export interface Checkpoint {
  readonly epoch: string;
  readonly head: number;
  /** What was asked for with {@link SharedLogSession.requestCheckpoint}. */
  readonly token: number;
  /** The last position of each channel that was asked for, in that order; without a record as in {@link FeedEvent.previous}. */
  readonly last: readonly number[];
}

/** An event as it is kept. */
export interface StoredEvent {
  readonly seq: number;
  readonly keys: readonly string[];
  readonly text: string;
}

/** A stretch of the log, of some channels. */
export interface ReplayPage {
  readonly epoch: string;
  /** In order of position, each once. */
  readonly records: readonly StoredEvent[];
  /** It has everything of these channels that is kept up to here; the head, unless it was cut. */
  readonly through: number;
  /** For each channel, in the order asked for, how far its events are not kept any more; 0 while all are. */
  readonly droppedThrough: readonly number[];
}

/** What a new reader has to know of its channels. */
export interface SharedHistoryBounds {
  readonly epoch: string;
  readonly head: number;
  /** The position after which the newest events are, as many as `max` allows; 0 if all that there are. */
  readonly floor: number;
  /** For each channel, in the order asked for. */
  readonly channels: readonly {
    /** As in {@link ReplayPage}. */
    readonly dropped: number;
    /** The position of the oldest event that is kept. */
    readonly oldest: number | undefined;
    /** The position of the first event kept after the one asked for. */
    readonly next: number | undefined;
  }[];
}

/** A connection, as it is known to all processes. */
export interface Presence {
  readonly clientId: string;
  readonly subject: string | undefined;
}

/** Whether a connection was made known, and if the store counts, when. */
export type PresenceResult = "entered" | "barred" | "taken" | number;

/** What a process is told to do with its clients. */
export interface PeerCommand {
  readonly type: "disconnect" | "replace";
  readonly clientId: string;
  /** With `"replace"`, whose. */
  readonly subject: string | undefined;
  /** With `"disconnect"`, milliseconds that the id is turned away for. */
  readonly barFor: number;
  /** When it was given, as the store counts: it is not for who entered later. */
  readonly at?: number;
}

/** Who hears of what happens. Nothing of it may throw. */
export interface SharedLogListener {
  onEvent(message: FeedEvent): void;
  onCheckpoint(mark: Checkpoint): void;
  /** From another process. */
  onCommand(order: PeerCommand): void;
  /** The feed is there, and new: nothing is subscribed to. Or it is lost; it is made again without being asked. */
  onFeed(isThere: boolean): void;
  /** Commands can be given, or no more. */
  onCommands(isThere: boolean): void;
  /** Something failed that nobody waits for. */
  onError(error: unknown): void;
}

/**
 * What one process has of a shared log. Whatever returns a promise MUST reject with `engine-down`, at once, while commands cannot be given,
 * and when it can have had no effect; an append whose answer is lost MUST reject with `publish-outcome-unknown`. Nothing is retried.
 */
export interface SharedLogSession {
  /**
   * Gives the event the next position, keeps it, and sends it to the feed of every channel of it: all of it or nothing. MUST keep the order of
   * the calls. MUST NOT append twice what was asked once, nor what comes with a `nonce` that was seen within the window: that is answered
   * with the first position, or refused with `key-reused` if the event is another one. With a `recipient` that has no presence, and had
   * none lately, it is refused with `unknown-client`. `seen` is the last position this process knows of: a log that is behind it MUST begin anew.
   */
  append(
    keys: readonly string[],
    text: string,
    seen: { readonly epoch: string; readonly seq: number } | undefined,
    nonce: string | undefined,
    recipient: string | undefined,
  ): Promise<AppendResult>;
  /** Resolves when every later message of these channels is certain to come. Inboxes (keys that begin with `@`) come always, and are not named here. */
  subscribe(keys: readonly string[]): Promise<void>;
  unsubscribe(keys: readonly string[]): Promise<void>;
  /** Has a mark come through the feed. The first one makes the log if there is none. */
  requestCheckpoint(
    token: number,
    keys: readonly string[],
    seen: { readonly epoch: string; readonly seq: number } | undefined,
  ): Promise<void>;
  /** What these channels have after a position of `epoch`: at least one event if there is one, and no more than about `bytes` of them. */
  read(epoch: string, keys: readonly string[], after: number, bytes: number): Promise<ReplayPage>;
  /** With an epoch that is not the current one: the current one, or `""` if there is none, and its head; nothing else holds. */
  historyBounds(epoch: string, keys: readonly string[], from: number, max: MaxReplay): Promise<SharedHistoryBounds>;
  /** Makes the feed anew, because nothing comes through it. */
  renewFeed(): void;

  /**
   * Makes connections known, each unless its id is barred, or with `"reject"` is there already with the same subject in any process that is
   * alive. With `"replace"` the other processes are told. Should this process die, what it has lingers for `linger` milliseconds from then on.
   */
  enter(
    presences: readonly Presence[],
    rule: "allow" | "reject" | "replace",
    linger: number,
  ): Promise<readonly PresenceResult[]>;
  /** A connection is over; its id can be written to for `linger` milliseconds. */
  leave(presence: Presence, linger: number): Promise<void>;
  /** Ids that can be written to for so many milliseconds, because of connections that are over. */
  linger(ids: ReadonlyMap<string, number>): Promise<void>;
  /** Enters everything again that this process has: after a time in which it may have been taken for dead, or was. */
  renew(presences: readonly Presence[]): Promise<void>;
  isBarred(clientId: string): Promise<boolean>;
  /** Bars an id (with `barFor` over 0), tells the other processes, and answers how many connections those have. */
  disconnect(clientId: string, barFor: number): Promise<number>;
  /** Milliseconds after which `renew` has to be called again. */
  readonly lease: number;

  /** Leaves, with all its connections' presences: they linger for so many milliseconds. Nothing is called any more. */
  close(linger: number): void;
}

/** A log that several processes share. */
export interface SharedLog {
  /** Called at the broker's first use, never at module scope. */
  open(listener: SharedLogListener): SharedLogSession;
}
