// The port of a log that several processes share: the operations that a store such as Redis has to offer to one of them. Everything about
// trust (is an event missing, did the log begin again, is the feed alive) is the work of `sharedLogEngine`, which makes an engine of a store.
import type {
  AppendResult,
  PeerCommand,
  Presence,
  PresenceResult,
  ReplayPage,
  StreamAnswer,
  StreamRequest,
} from "../engine/engine.ts";
import type { RunStore } from "../engine/run-store.ts";
import type { Position } from "../event/position.ts";
import type { MaxReplay } from "../log/resume.ts";

/** A log that several processes share. */
export interface SharedLog {
  /** Connects a listener. Called at the broker's first use, never at module scope. */
  open(listener: SharedLogListener): SharedLogSession;
}

/** Receives what a store reports. No method may throw. */
export interface SharedLogListener {
  /** An event arrived over the feed. */
  onEvent(event: FeedEvent): void;
  /** An event that is not stored arrived over the feed, in order with the others. It arrives once at most. */
  onEphemeral?(epoch: string, keys: readonly string[], text: string): void;
  /** A checkpoint arrived over the feed. */
  onCheckpoint(checkpoint: Checkpoint): void;
  /**
   * Another process sent a command. A process whose feed was lost for a while MUST receive the commands of that time afterwards, but not those
   * from before its first connection.
   */
  onCommand(command: PeerCommand): void;
  /** Another process asks for a request to be carried out on the streams of this one. Rejects with the {@link BrokerError} that refuses it. */
  onRequest?(request: StreamRequest): Promise<StreamAnswer>;
  /**
   * The feed is connected, and nothing is subscribed (`true`), or it is lost (`false`). Called at every change. The store reconnects it without
   * being asked.
   */
  onFeed(isConnected: boolean): void;
  /** The methods of the session can be called (`true`), or reject with `engine-down` (`false`). Called at every change. */
  onCommands(isConnected: boolean): void;
  /** Background work failed. */
  onError(error: unknown): void;
}

/** An event as it arrives over the feed. */
export interface FeedEvent extends Position {
  /** The keys of its channels, each once. */
  readonly keys: readonly string[];
  /** For each key: the position of the previous event of that channel; for a channel without a record, the last position it may have had. */
  readonly previous: readonly number[];
  /** The wire form without an id. */
  readonly text: string;
}

/** A marker in the feed: every event before it has a position up to `head`, and every event after it has a later one. */
export interface Checkpoint {
  readonly epoch: string;
  readonly head: number;
  /** The token of the {@link SharedLogSession.requestCheckpoint} that asked for it. */
  readonly token: number;
  /** The last position of each requested channel, in the order of the request; without a record, as in {@link FeedEvent.previous}. */
  readonly last: readonly number[];
}

/** The bounds of what is retained of some channels, for a subscriber that starts after a position. */
export interface SharedHistoryBounds {
  readonly epoch: string;
  readonly head: number;
  /**
   * The position after which the newest events lie, as many as `max` allows; 0 if `max` allows all of them after the requested position. With
   * `last`, only the newest `last` events of each channel count.
   */
  readonly floor: number;
  /** For each channel, in the order of the request. */
  readonly channels: readonly {
    /** As in {@link ReplayPage}. */
    readonly droppedThrough: number;
    /** The position of the oldest retained event. */
    readonly oldest: number | undefined;
    /** The position of the first retained event after the requested position. */
    readonly next: number | undefined;
    /** With `last`: the position after which the channel's newest `last` events lie; 0 if it retains no more than those. */
    readonly lastFloor?: number | undefined;
  }[];
}

/**
 * One process's access to a shared log. A method that returns a promise MUST reject with `engine-down`, at once, while commands cannot be
 * given, and whenever it certainly had no effect. An append whose answer is lost MUST reject with `publish-outcome-unknown`. Nothing is
 * retried here: `sharedLogEngine` and publishers retry. A method MUST NOT wait for an answer for ever: a connection on which nothing arrives
 * counts as lost.
 *
 * Durations are in milliseconds. They and the bounds of `MaxReplay` may be `Infinity`, which JSON cannot express.
 */
export interface SharedLogSession {
  /**
   * Assigns the next position to an event, stores it, and sends it to the feed of each of its channels, all or nothing. MUST keep the order
   * of the calls. MUST NOT append the same call twice, nor an event with an `idempotencyKey` seen within the window: the answer is the first
   * position, or `key-reused` if the event is another one. MUST then refuse a `recipient` that has no presence and does not linger as
   * `unknown-client`. `seen` is the last position that this process knows: a log that is behind it MUST begin a new epoch. The `subject` is the
   * publisher's, if it has one: a store MAY bound the history by it. `sharedLogEngine` itself appends notices of lost events, of up to 128 keys.
   */
  append(
    keys: readonly string[],
    text: string,
    seen: Position | undefined,
    idempotencyKey: string | undefined,
    recipient: string | undefined,
    subject?: string | undefined,
  ): Promise<AppendResult>;
  /**
   * Sends an event to the feed of its channels, in order with those that are appended, without storing it. It may get lost. Absent if the store
   * cannot.
   */
  sendEphemeral?(keys: readonly string[], text: string): Promise<void>;
  /** Resolves when every later event of these channels is certain to arrive. Inboxes (keys that begin with `@`) always arrive and are not listed. */
  subscribe(keys: readonly string[]): Promise<void>;
  unsubscribe(keys: readonly string[]): Promise<void>;
  /** Sends a checkpoint through the feed. The first one creates the log if there is none. */
  requestCheckpoint(token: number, keys: readonly string[], seen: Position | undefined): Promise<void>;
  /**
   * Reads the events of these channels after a position of `epoch`: at least one if there is one, and about `bytes` bytes at most. A store MAY
   * end a page earlier, where it has done as much work as one command should. For an epoch that is not the current one, only the current epoch
   * (`""` if there is none) is valid.
   */
  read(epoch: string, keys: readonly string[], after: number, bytes: number): Promise<ReplayPage>;
  /**
   * Returns the history bounds. For an epoch that is not the current one, only the current epoch (`""` if there is none) and its head are
   * valid. With `last`, the subscriber asks for the newest `last` events of each channel. A store that cannot find them leaves `lastFloor` out,
   * and the subscriber is refused (`bad-request`).
   */
  historyBounds(
    epoch: string,
    keys: readonly string[],
    after: number,
    max: MaxReplay,
    last?: number,
  ): Promise<SharedHistoryBounds>;
  /** Replaces the feed's connection, because nothing arrives through it. */
  renewFeed(): void;

  /**
   * Registers connections, each unless its id is barred or, with `"reject"`, a living process has one with the same id and subject. With
   * `"replace"` the other processes receive a command. If this process dies, all its client ids linger for `lingerMs` milliseconds from then on.
   */
  enter(
    presences: readonly Presence[],
    rule: "allow" | "reject" | "replace",
    lingerMs: number,
  ): Promise<readonly PresenceResult[]>;
  /** Removes one connection of this process; its client id still accepts events for `lingerMs` milliseconds. */
  leave(presence: Presence, lingerMs: number): Promise<void>;
  /** Lets client ids accept events for the given milliseconds, after their connections ended. */
  linger(ids: ReadonlyMap<string, number>): Promise<void>;
  /**
   * Replaces everything registered for this process, which also proves that it is alive. Called every `lease` milliseconds, and whenever
   * commands can be given again. A store that counts a process as dead MUST end its connections, so that it notices if it is not.
   */
  renew(presences: readonly Presence[]): Promise<void>;
  isBarred(clientId: string): Promise<boolean>;
  /**
   * Bars a client id (if `barMs` is over 0), sends a command with the application's reason to the other processes, and returns how many
   * connections those have.
   */
  disconnect(clientId: string, barMs: number, reason?: string): Promise<number>;
  /** As `request` of a {@link PresenceStore}. Absent if the store cannot. */
  request?(request: StreamRequest): Promise<readonly StreamAnswer[]>;
  /**
   * Opens the place that keeps runs, as `openRuns` of an `EngineSession`. `started` returns a promise while the store has not yet reported whether it
   * is reachable: calls wait for it. Absent if the store keeps none.
   */
  openRuns?(started: () => Promise<void> | undefined): RunStore;
  /** Milliseconds between two calls of `renew`. A store counts a process as dead after a few times as long. */
  readonly lease: number;

  /** Leaves with all connections of this process; their client ids linger for `lingerMs` milliseconds. Nothing is called after this. */
  close(lingerMs: number): void;
}
