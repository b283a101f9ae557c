// One snapshot: calls the application, and sends one event for each request of the connection. Also the types of the option `snapshot`.
import { after } from "../base/runtime.ts";
import type { ClientInfo, Connection } from "../delivery/connection.ts";
import type { Fanout } from "../delivery/fanout.ts";
import { type EventInput, type EventRules, isText, prepareEvent } from "../event/event.ts";
import type { EventInputOf } from "../event/event-map.ts";
import { encode, formatControl } from "../event/sse-format.ts";
import { hasNews } from "../log/batch.ts";

/**
 * Why a client needs a snapshot: its stream is new, events are missing from it, or channels were added to it while it was open.
 */
export type SnapshotReason = "new" | "gap" | "joined";

/** The argument of the option `snapshot`. */
export interface SnapshotRequest {
  readonly client: ClientInfo;
  /** The request that opened the stream. Absent once the stream is open. In a Durable Object with mode `bridge` it has a URL only. */
  readonly request: Request | undefined;
  /** The channels whose state the client needs. All of its channels also stand for events to every client and to this client. */
  readonly channels: readonly string[];
  readonly reason: SnapshotReason;
  /** The id from which the stream goes on after the snapshot. Everything that was published up to there is in the state already. */
  readonly position: string;
  /** Aborted when nobody needs the rest: the client has left, the broker closes, or `snapshotTimeout` is over. */
  readonly signal: AbortSignal;
}

/** The events of a snapshot. A string is not a list of events. */
export type SnapshotEvents<Inputs = unknown> = Iterable<EventInputOf<Inputs>> | AsyncIterable<EventInputOf<Inputs>>;

/** Returns the events of a snapshot, or `undefined` if the client needs none. */
export type Snapshot<Inputs = unknown> = (
  request: SnapshotRequest,
) => SnapshotEvents<Inputs> | undefined | Promise<SnapshotEvents<Inputs> | undefined>;

/** Options of the broker that snapshots depend on. */
export interface SnapshotSettings extends EventRules {
  readonly snapshotTimeout: number;
  readonly maxSnapshots: number;
}

/** The broker that sends the snapshots. */
export interface SnapshotHost {
  readonly fanout: Fanout;
  reportError(error: unknown): void;
  /** Ends a connection, and asks its client to come back. */
  endFailed(connection: Connection): void;
}

/** The place of a snapshot in its stream. */
export interface SnapshotPlace {
  readonly reason: SnapshotReason;
  readonly channels: readonly string[];
  /** The position from which the stream goes on. */
  readonly through: number;
  /** The position that the client's id has until then. */
  readonly heldAt: number;
}

const DONE = { done: true, value: undefined } as const;

/** The connection that a snapshot is for. */
interface SnapshotOwner {
  readonly all: {
    readonly snapshot: Snapshot;
    readonly settings: SnapshotSettings;
    readonly host: SnapshotHost;
    /** Starts a snapshot: now, or when another one is over. */
    enter(run: SnapshotRun): void;
    /** A snapshot no longer needs the application. */
    leave(run: SnapshotRun): void;
    /** Returns a promise for a snapshot to wait for, if all of them have sent enough in this turn of the event loop. */
    nextShare(): Promise<void> | undefined;
    /** An event was sent, and the connection has not asked for the next one yet. */
    onSent(run: SnapshotRun): void;
    /** The connection has asked for the next event. */
    onTaken(run: SnapshotRun): void;
  };
  readonly connection: Connection;
  readonly request: Request | undefined;
  /** The snapshot is complete: the stream goes on from its position. */
  finish(run: SnapshotRun): void;
}

/** One snapshot. Each of its events answers a request of the connection, so that a slow client makes the application wait. */
export class SnapshotRun {
  readonly through: number;
  /** The whole state up to here is in this snapshot; -1 if it is one of single channels. */
  readonly coveredThrough: number;
  /** The connection has asked for the next event. */
  isWaiting = false;
  readonly #owner: SnapshotOwner;
  readonly #place: SnapshotPlace;
  readonly #position: string;
  readonly #abort = new AbortController();
  #iterator: Iterator<EventInput> | AsyncIterator<EventInput> | undefined;
  /** The next event, until the connection asks for it. */
  #chunk: Uint8Array<ArrayBuffer> | undefined;
  #state: "new" | "busy" | "ready" | "complete" | "cancelled" = "new";
  #cancelTimer: (() => void) | undefined;

  constructor(owner: SnapshotOwner, place: SnapshotPlace) {
    const { log } = owner.all.host.fanout;
    const { through, channels, reason } = place;
    this.#owner = owner;
    this.#place = place;
    this.through = through;
    const isWhole = reason !== "joined" && channels.length === owner.connection.info.channels.length;
    this.coveredThrough = isWhole ? log.head : -1;
    this.#position = log.id(through);
  }

  requestNext(): void {
    this.isWaiting = true;
    this.#owner.all.onTaken(this);
    if (this.#chunk) {
      this.#send();
    } else if (this.#state === "new") {
      this.#state = "busy";
      this.#owner.all.enter(this);
    } else if (this.#state === "ready") {
      this.#state = "busy";
      void this.#pull();
    }
  }

  /** Calls the application, and asks it for the first event. Never rejects. */
  async start(): Promise<void> {
    const { all, connection, request } = this.#owner;
    const { snapshotTimeout } = all.settings;
    const { channels, reason } = this.#place;
    const onTimeout = (): void =>
      this.#fail(new Error(`Snapshot failed: it was not complete within snapshotTimeout (${snapshotTimeout} ms).`));
    // A timer would keep an object from hibernating.
    if (snapshotTimeout !== Infinity) this.#cancelTimer = after(snapshotTimeout, onTimeout, true);
    // In a microtask of its own, because a flush may be running.
    await undefined;
    try {
      if (this.#isOver) return;
      const { info: client } = connection;
      const { signal } = this.#abort;
      this.#iterator = iteratorOf(
        await all.snapshot({ client, request, channels, reason, position: this.#position, signal }),
      );
      if (this.#isOver) this.#endIterator();
      else await this.#pull();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Gets the next event from the application. Never rejects. */
  async #pull(): Promise<void> {
    const { settings } = this.#owner.all;
    try {
      await this.#owner.all.nextShare();
      // An iterator that was ended in the meantime is not asked again.
      if (this.#isOver) return;
      const next = this.#iterator ? await this.#iterator.next() : DONE;
      if (this.#isOver) return;
      if (!next.done) {
        this.#chunk = encode(prepareEvent(next.value, settings));
        this.#state = "ready";
      } else {
        const { channels, reason } = this.#place;
        this.#chunk = encode(formatControl("snapshot", { channels, reason, end: true }, this.#position));
        this.#state = "complete";
        this.#release();
      }
    } catch (error) {
      this.#fail(error);
      return;
    }
    if (this.isWaiting) this.#send();
  }

  #send(): void {
    const { connection, all } = this.#owner;
    const { fanout } = all.host;
    const chunk = this.#chunk as Uint8Array<ArrayBuffer>;
    const isComplete = this.#state === "complete";
    this.#chunk = undefined;
    this.isWaiting = false;
    if (isComplete) this.#owner.finish(this);
    else all.onSent(this);
    fanout.sentBytes += chunk.length;
    const through = isComplete ? this.through : this.#place.heldAt;
    const isTaken = connection.receive({
      items: [],
      events: 0,
      gaps: 0,
      through,
      more: !isComplete,
      chunk,
      ...(isComplete ? {} : { isHeld: true }),
    });
    if (!isTaken || connection.live || fanout.isLoadingHistory(connection)) return;
    if (!isComplete || hasNews(connection.channels, connection.cursor)) connection.onBlocked?.();
  }

  /** Gives the place of a snapshot whose client does not read to one that waits. */
  endForOthers(): void {
    this.#fail(new Error("Snapshot ended: its client did not read while others waited; maxSnapshots may be higher."));
  }

  /** The rest of the snapshot is not needed. */
  cancel(): void {
    if (this.#isOver) return;
    const wasComplete = this.#state === "complete";
    this.#state = "cancelled";
    this.#chunk = undefined;
    if (wasComplete) return;
    this.#release();
    this.#abort.abort();
    this.#endIterator();
  }

  get #isOver(): boolean {
    return this.#state === "cancelled";
  }

  #release(): void {
    this.#cancelTimer?.();
    this.#owner.all.leave(this);
  }

  /** Lets the application free what the snapshot has in use. */
  #endIterator(): void {
    const { host } = this.#owner.all;
    const onError = (error: unknown): void => host.reportError(error);
    void (async () => this.#iterator?.return?.())().catch(onError);
  }

  #fail(error: unknown): void {
    if (this.#isOver) return;
    this.cancel();
    const { all, connection } = this.#owner;
    all.host.reportError(error);
    all.host.endFailed(connection);
  }
}

/** @throws `TypeError` for what is not an iterable of events */
function iteratorOf(events: SnapshotEvents | undefined): Iterator<EventInput> | AsyncIterator<EventInput> | undefined {
  if (events === undefined) return undefined;
  const { [Symbol.asyncIterator]: asynchronous, [Symbol.iterator]: synchronous } = Object(events) as Record<
    symbol,
    unknown
  >;
  const iterate = asynchronous ?? synchronous;
  if (typeof iterate !== "function" || isText(events))
    throw new TypeError(
      `Snapshot failed: snapshot() must return a list or generator of events, or undefined, not ${typeof events}.`,
    );
  return iterate.call(events) as Iterator<EventInput> | AsyncIterator<EventInput>;
}
