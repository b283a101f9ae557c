// The contract between a broker and the place that keeps its events. One contract joins history and fan-out, so that there is no
// seam between them. README.md says how to write an engine; `fanwire/engine/testing` has the contract as cases with stable ids.
import type { ExpiringMap } from "../base/expiring-map.ts";
import type { Position } from "../event/position.ts";
import type { HistoryRange, LogReader } from "../log/batch.ts";
import type { LossNotice } from "../log/channel-log.ts";
import type { Log, LogListener } from "../log/log.ts";
import type { HistoryBounds, MaxReplay } from "../log/resume.ts";
import type { RunStore } from "./run-store.ts";

/**
 * Assigns positions to events and keeps them.
 *
 * Events belong to channels. A channel is named by its key: empty for the common channel of all clients, `#name` for a channel, and
 * `@clientId` for the inbox of a client. Keys are case-sensitive. They have no control characters, and no lone surrogates.
 *
 * An engine
 * - MUST assign positions in one total order and MUST keep the order of the calls of one process;
 * - MUST call `listener.onAppended` for every event of a subscribed channel, in order, before it answers the publisher;
 * - MUST NOT let `log.head` pass an event of a subscribed channel that was not reported to the listener by `onAppended` or `onMissed`,
 *   because the broker assumes that every subscriber has read up to the head;
 * - MUST NOT assign a position of one epoch twice, and MUST begin a new epoch when it cannot prove that the log continues. A store that can
 *   lose the events of its last moments, in a crash or from a backup, begins a new epoch afterwards;
 * - MUST reject at once, without a retry, an event that it cannot append; the publisher receives a `BrokerError` unchanged, and retries;
 * - MAY drop events that retention no longer keeps. It MUST count a dropped event in `ChannelLog.droppedThrough`.
 *
 * An engine whose log is in this process adds the listener to `log.listeners`. `log.append` then keeps most of these rules.
 */
export interface Engine {
  /** Connects a listener. The broker calls this at its first use, never at module scope. Several listeners may share one engine. */
  open(listener: EngineListener): EngineSession;
}

/** Receives the events of an engine for one broker. No method may throw. */
export interface EngineListener extends LogListener {
  /** The session continues with another log in a new epoch. The new log already has the records of all subscribed channels. */
  onLogReplaced?(log: Log): void;
  /**
   * Events of a channel did not arrive, and the log has counted them as dropped. The missing events lie after the
   * position `after`, up to `through`. Later events of other channels may have been delivered already. `through` is never beyond the head.
   */
  onMissed?(key: string, after: number, through: number): void;
  /** Another process asks this one to act on its connections. */
  onCommand?(command: PeerCommand): void;
  /**
   * Another process asks this one to carry out a request on its connections. Rejects with a {@link BrokerError} if it is refused, which the other
   * process has to receive.
   */
  onRequest?(request: StreamRequest): Promise<StreamAnswer>;
  /** Background work failed. */
  onError?(error: unknown): void;
}

/** The answer to an append: the position of the event. */
export interface AppendResult extends Position {
  /** `true` if nothing was appended, because an event with this idempotency key is already at this position. */
  readonly repeated: boolean;
}

/** One broker's access to an engine. */
export interface EngineSession {
  /** The part of the log that this process holds. */
  readonly log: Log;
  /** `down` while nothing can be appended. The broker reads it at every use. @default "up" */
  readonly state?: "up" | "down";
  /**
   * Appends an event to the channels of `keys`, each of which occurs once. `text` is the wire form without the `id:` line. It may contain lone
   * surrogates: a store that does not keep them MUST replace them by U+FFFD before it does anything else, as the wire does. Returns a promise
   * only if the engine needs one.
   *
   * With an `idempotencyKey`, MUST append the event once within a window that the engine documents, and MUST refuse another event with the
   * same key. The key includes the publisher, and may contain a line break. A key of a refused event MUST NOT be remembered.
   *
   * A `recipient` is the client id of the inbox in `keys`. MUST refuse the event if `presence` does not know the client. Without `presence`
   * the broker has already checked.
   *
   * The `subject` is the publisher's, as `authorize` says; an event of the program itself, or published with the token, has none. An engine that
   * bounds what one publisher may take from the others MAY count the event for it.
   *
   * MUST reject with a {@link BrokerError}:
   * - `engine-down` if nothing was appended, because the store cannot be reached or does not accept the event;
   * - `publish-outcome-unknown` if the event may have been appended;
   * - `key-reused` if the key was used for another event;
   * - `unknown-client` if the recipient is not known;
   * - `event-too-large` if the store cannot hold it.
   */
  append(
    keys: readonly string[],
    text: string,
    idempotencyKey?: string,
    recipient?: string,
    subject?: string,
  ): AppendResult | Promise<AppendResult>;
  /**
   * Sends an event that is not stored to every broker of this engine, behind the events that were appended before: each calls `onEphemeral` of its
   * listener. It may get lost, and MUST NOT be sent twice. Returns a promise only if the engine needs one, which rejects with `engine-down` if
   * nothing was sent. Absent if the engine cannot: ephemeral events are then refused.
   */
  sendEphemeral?(keys: readonly string[], text: string): void | Promise<void>;
  /**
   * Subscribes to channels. MUST NOT resolve before every later event of these channels is certain to reach `onAppended`. Calls are counted:
   * each one is undone by one `unsubscribe`, unless it rejects. Rejects with `engine-down`. Both methods are absent if every listener receives
   * every event.
   */
  subscribe?(keys: readonly string[]): Promise<void> | undefined;
  unsubscribe?(keys: readonly string[]): void;
  /** Resolves when `log` has every event of the subscribed channels that was published before the call, anywhere. Present if `subscribe` is. */
  settle?(): Promise<void>;
  /**
   * Reads the retained events of these channels after a position, in order, with the facts needed to detect a gap: at least one event if
   * there is one, and every event up to the end of the page. Absent if `log` holds everything that is retained. If present,
   * `ChannelLog.droppedThrough` also counts events that this process does not hold.
   */
  read?(keys: readonly string[], after: number): Promise<ReplayPage>;
  /** Creates a loader of history for one broker. MUST be present if `read` is; `historyLoader(read)` returns one. */
  readonly loadHistory?: (host: HistoryHost) => HistoryLoader;
  /**
   * Returns the bounds of what is retained of these channels, for a subscriber that starts after a position. Present if `read` is. With `last`
   * the subscriber asks for the newest `last` events of each channel: the engine MUST then set `lastFloor` of each channel, or reject with `bad-request`.
   */
  historyBounds?(keys: readonly string[], after: number, max: MaxReplay, last?: number): Promise<HistoryBounds>;
  /** Returns the position of the newest event of all channels. Present if `read` is. */
  head?(): Promise<Position>;
  /** The connections of all processes. Absent if there is only one process. */
  readonly presence?: PresenceStore;
  /**
   * Makes client ids that the broker remembers for a while outlive the process. Called when a broker opens the engine, once for each `kind`.
   * First adds the stored ids: `names.set(clientId, remainingMs, true, owner)`. Then assigns `names.onSet`, to store each id with its expiry
   * time and its owner, and `names.onForget`, to delete it. Both MUST NOT throw. Absent if nothing outlives the process.
   */
  persistNames?(kind: "barred" | "lingering", names: ExpiringMap): void;
  /** Opens the place that keeps runs, which the caller closes. Absent if the engine has none: a single process then keeps them in its memory. */
  openRuns?(onError: (error: unknown) => void): RunStore;
  /**
   * Whether the process before this one ended without `close`. Its clients are about to come back, so for `inboxLinger` after the start every
   * client id counts as known. Absent if nothing outlives the process, or `presence` knows.
   */
  readonly expectsReturns?: boolean;
  /**
   * Disconnects the listener, of which nothing is called after this. The log and its other listeners stay. With `presence`, client ids of open
   * connections linger for `lingerMs` milliseconds.
   */
  close(lingerMs?: number): void;
}

/** Loads retained events that the local log does not hold, for readers that are behind. */
export interface HistoryLoader {
  /** Whether a reader waits for history. */
  has(reader: LogReader): boolean;
  /** Loads what follows a reader's cursor, and passes it to `host.deliverHistory`, never from inside this call. */
  request(reader: LogReader): void;
  /** The reader no longer waits. */
  cancel(reader: LogReader): void;
  /** The log was replaced: loaded events are of no use. */
  clear(): void;
}

/** Receives loaded history. */
export interface HistoryHost {
  readonly log: Log;
  /** Sends loaded history to a reader that asked for it. */
  deliverHistory(reader: LogReader, history: HistoryRange): void;
  onError(error: unknown): void;
}

/** A part of the log, for some channels. */
export interface ReplayPage {
  readonly epoch: string;
  /** Events in order of position, each once. */
  readonly records: readonly StoredEvent[];
  /** The page has every retained event of these channels up to this position. It is the head, unless the page was cut. */
  readonly through: number;
  /** For each channel, in the order of the request: the last position that is no longer retained. MAY be 0 if that is not after the request's. */
  readonly droppedThrough: readonly number[];
}

/** An event as the store keeps it. */
export interface StoredEvent {
  readonly seq: number;
  readonly keys: readonly string[];
  readonly text: string;
  /** Set if this is not an event. */
  readonly notice?: LossNotice | undefined;
}

/** One connection, as all processes know it. */
export interface Presence {
  readonly clientId: string;
  readonly subject: string | undefined;
}

/**
 * Whether a connection was registered. A store that numbers registrations and commands in one sequence returns the number, so that a command
 * that arrives late does not concern a connection that was registered after it.
 */
export type PresenceResult = "entered" | "barred" | "taken" | number;

/**
 * The connections of all processes that share a log. Entries are leases: entries of a process that died expire. A client id may be `barred`: it
 * is refused for a while. It may linger: events for it are accepted for a while after its last connection ended. Durations are milliseconds, and
 * may be `Infinity`.
 */
export interface PresenceStore {
  /**
   * Registers a connection, unless its client id is barred or, with `"reject"`, the same subject already uses it. With `"replace"` other
   * processes receive a command to end their connections. If this process dies, the client id lingers for `lingerMs` milliseconds.
   */
  enter(presence: Presence, rule: "allow" | "reject" | "replace", lingerMs: number): Promise<PresenceResult>;
  /** Removes a connection. Its client id still accepts events for `lingerMs` milliseconds. */
  leave(presence: Presence, lingerMs: number): void;
  isBarred(clientId: string): Promise<boolean>;
  /** Bars a client id for `barMs` milliseconds and ends its connections in the other processes. Returns how many those were. */
  disconnect(clientId: string, barMs: number, reason?: string): Promise<number>;
  /**
   * Has a request carried out by the other processes, and returns their answers. MUST reject with `engine-down` if one that may hold such a stream
   * does not answer, and as that process refuses the request. Absent if the engine cannot: such requests are then refused.
   */
  request?(request: StreamRequest): Promise<readonly StreamAnswer[]>;
}

/** Names the streams that a request is about: those of a client id, or one of them, or the one that has a secret. */
export interface StreamTarget {
  readonly clientId?: string | undefined;
  readonly connectionId?: string | undefined;
  /** The secret that the stream's client received, together with the subject that presents it. */
  readonly secret?: string | undefined;
  readonly subject?: string | undefined;
}

/** A request about open streams. The processes that hold them carry it out. */
export type StreamRequest = StreamTarget &
  (
    | { readonly type: "subscribe"; readonly channels: readonly string[] }
    | { readonly type: "unsubscribe"; readonly channels: readonly string[]; readonly reason?: string | undefined }
    /** `text` is the wire form of an event, without an id. */
    | { readonly type: "send"; readonly text: string }
  );

/** The answer of a process that has carried out a request. */
export interface StreamAnswer {
  /** Number of streams that it concerned. */
  readonly clients: number;
  /** The head of the log after the change. */
  readonly position?: Position;
}

/** A command that another process sends to all brokers of a log. */
export interface PeerCommand {
  readonly type: "disconnect" | "replace";
  readonly clientId: string;
  /** With `"replace"`: only connections of this subject are replaced. */
  readonly subject: string | undefined;
  /** With `"disconnect"`: milliseconds for which the client id is barred. */
  readonly barFor: number;
  /** With `"disconnect"`: the application's reason. */
  readonly reason?: string | undefined;
  /** The number of the command, if registrations have numbers too. Never goes back, even if the store restarts. */
  readonly at?: number;
}
