// A reader of a simulated history: a client or a listener, over all of its connections. Like an EventSource it knows only the last id that
// it received, and reconnects with that.
import type { Broker, Listened } from "../../../src/index.ts";
import type { ReaderRecord, ReceivedItem } from "../oracle/oracle.ts";
import { type ConnectionAttempt, channelsOf, FOREIGN_ID, RETAINED_STARTS } from "./connection-attempt.ts";
import type { Drop, ReaderPlan } from "./history.ts";
import { type Item, inboxName } from "./items.ts";
import { JOINED } from "./stream-oracle.ts";

/**
 * Where a reader starts that has no id yet: at the newest event, at the oldest retained one, at the newest one or two of each channel, or with
 * the id of an unknown log.
 */
export type StartOption = "live" | "earliest" | "latest" | "newest two" | "foreign";

const NEWEST: { readonly [start in StartOption]?: number } = { latest: 1, "newest two": 2 };

/** The parts of a simulation that a reader needs. */
export interface ReaderEnvironment {
  readonly now: () => number;
  /** Returns the rank of an id among all events that were published. */
  readonly rankOf: (id: string) => number;
  /** Returns the rank of the newest event of all. */
  readonly head: () => number;
  /** Whether a listener starts at the position that the log has when `listen()` is called, and not when a store has answered. */
  readonly isLocal: boolean;
  /** Connects a client. */
  readonly connect: (reader: Reader, lastEventId: string | undefined) => ConnectionAttempt;
  /** Returns the broker that a listener listens to. */
  readonly broker: (reader: Reader) => Broker;
}

export class Reader implements ReaderRecord {
  readonly plan: ReaderPlan;
  readonly channels: readonly string[];
  readonly items: ReceivedItem[] = [];
  readonly newest: number | undefined;
  readonly joined: readonly string[] = [JOINED];
  start = Infinity;
  floor = 0;
  historyRequestedAt: number | undefined;
  /** The process to which the reader connects next. */
  process: 0 | 1 = 0;
  readonly #environment: ReaderEnvironment;
  #lastEventId: string | undefined;
  #attempt: ConnectionAttempt | undefined;
  #listener: AsyncIterableIterator<Listened, undefined> | undefined;
  /** Whether the current connection or listener began without an id. */
  #isFromStart = false;

  constructor(plan: ReaderPlan, environment: ReaderEnvironment) {
    this.plan = plan;
    this.channels = channelsOf(plan);
    this.newest = NEWEST[plan.start];
    this.#environment = environment;
  }

  /** The rank of the last id that the reader received, or 0. */
  get rank(): number {
    return this.#lastEventId === undefined ? 0 : this.#environment.rankOf(this.#lastEventId);
  }

  get isConnected(): boolean {
    const { registered, closed, socket } = this.#attempt ?? {};
    return this.#listener !== undefined || (registered !== undefined && !closed && socket !== undefined);
  }

  /** Whether this attempt is the reader's current connection. */
  isUsing(attempt: ConnectionAttempt): boolean {
    return this.#attempt === attempt;
  }

  /** Connects, unless the reader has a connection that it has not read to the end. */
  connect(): void {
    if (this.#attempt?.isOver) this.#attempt = undefined;
    if (this.#attempt || this.#listener) return;
    const { now, head, isLocal, connect, broker } = this.#environment;
    const { kind, start, channels } = this.plan;
    const isNew = this.#lastEventId === undefined;
    if (isNew && start === "foreign") this.start = 0;
    const lastEventId = this.#lastEventId ?? (start === "foreign" ? FOREIGN_ID : undefined);
    if (kind === "client") {
      this.#attempt = connect(this, lastEventId);
      return;
    }
    // A listener receives no `fanwire-ready` with the position at which it starts.
    if (isNew && isLocal && start === "live") this.start = this.floor = head();
    const retained = RETAINED_STARTS[start];
    if (isNew && isLocal && retained) this.#startRetained(head(), now());
    this.#isFromStart = isNew;
    this.#listener = broker(this).listen({
      ...(channels.length > 0 ? { channels: channels } : {}),
      lastEventId,
      ...retained,
    });
  }

  /** Sets the start of a reader that has not learned it: from now on it must receive every event. */
  startAtHead(): void {
    if (this.start === Infinity) this.start = this.#environment.head();
  }

  /** Reads a number of bytes. A listener requests one event for every eight bytes, and eight events at most. */
  read(bytes: number): void {
    this.connect();
    if (this.#attempt) {
      for (const [item, at] of this.#attempt.socket?.read(bytes) ?? []) this.#receive(item, at);
      return;
    }
    for (let count = 0; count < Math.min(bytes / 8, 8); count++) this.#requestNext();
  }

  removeCapacityLimit(): void {
    this.#attempt?.socket?.raiseCapacity(Infinity);
  }

  drop(how: Drop): void {
    this.#attempt?.drop(how);
    this.#attempt = undefined;
    void this.#listener?.return?.();
    this.#listener = undefined;
  }

  /** The reader has requested retained events, and must receive every event after `head`. */
  #startRetained(head: number, time: number): void {
    this.start = head;
    if (this.#environment.isLocal) this.historyRequestedAt = time;
  }

  #requestNext(): void {
    const listener = this.#listener;
    void listener?.next().then(({ done, value }) => {
      if (!done) this.#receive(value, this.#environment.now());
      // The broker of the listener has closed.
      else if (listener === this.#listener) this.#listener = undefined;
    });
  }

  #receive(item: Item | Listened, at: number): void {
    const { id, type } = item;
    this.#attempt?.received.push([
      rankedItem(item as Item, this.#environment.rankOf),
      id ? this.#environment.rankOf(id) : 0,
    ]);
    const registered = this.#attempt?.registered;
    if (type === "ready" && this.#lastEventId === undefined && registered) {
      if (id !== undefined && this.plan.start === "live") this.start = this.floor = this.#environment.rankOf(id);
      else if (RETAINED_STARTS[this.plan.start]) this.#startRetained(registered.head, registered.at);
    }
    if (this.#attempt) this.#isFromStart = this.#attempt.lastEventId === undefined;
    const isFromStart = this.newest !== undefined && this.#isFromStart;
    this.#lastEventId = id ?? this.#lastEventId;
    // The oracle knows one log only, so it receives ranks as ids.
    const idOf = (position: string): string => `x-${this.#environment.rankOf(position)}`;
    if (type === "event") this.items.push({ type, id: idOf(id), data: item.data, at, isFromStart });
    if (type !== "gap") return;
    const channels = item.channels.map((name) => (name === "fanwire-inbox" ? inboxName(this.plan.id) : name));
    const after = item.after === null ? null : idOf(item.after);
    this.items.push({ type, id: idOf(id), channels, after, through: idOf(item.through), at });
  }
}

/** Returns an item with ranks in place of the ids of its range. */
const rankedItem = (item: Item, rankOf: (id: string) => number): Item =>
  item.type === "gap"
    ? { ...item, after: item.after === null ? null : `x-${rankOf(item.after)}`, through: `x-${rankOf(item.through)}` }
    : item;
