import type { Broker, Listened } from "../../../src/index.ts";
import type { Lineage, Seen } from "../oracle/oracle.ts";
import type { Drop, Plan } from "./history.ts";
import { type Item, inboxName } from "./items.ts";
import { channelsOf, type Visit } from "./visit.ts";

/** How a reader begins when it has no id yet. */
export type Beginning = "live" | "earliest" | "foreign";

/** What a reader has to know of the world. */
export interface Surroundings {
  readonly now: () => number;
  /** Where an id is in the order of all that was published. */
  readonly place: (id: string) => number;
  /** The place of the newest event of all. */
  readonly head: () => number;
  /** A listener is told where the log is at its call, and not later, when a store has answered. */
  readonly isHere: boolean;
  /** Has a client connect. */
  readonly visit: (reader: Reader, asked: string | undefined) => Visit;
  /** The broker that it listens to. */
  readonly broker: (reader: Reader) => Broker;
}

/** A reader over all of its connections. Like an EventSource it knows nothing but the last id it saw, and comes back with that. */
export class Reader implements Lineage {
  readonly plan: Plan;
  readonly channels: readonly string[];
  readonly seen: Seen[] = [];
  start = Infinity;
  floor = 0;
  since: number | undefined;
  /** Which process it connects to next. */
  process: 0 | 1 = 0;
  readonly #around: Surroundings;
  #lastEventId: string | undefined;
  #visit: Visit | undefined;
  #listener: AsyncIterableIterator<Listened, undefined> | undefined;

  constructor(plan: Plan, around: Surroundings) {
    this.plan = plan;
    this.channels = channelsOf(plan);
    this.#around = around;
  }

  /** The place of the last id it saw. */
  get place(): number {
    return this.#lastEventId === undefined ? 0 : this.#around.place(this.#lastEventId);
  }

  /** It is connected. */
  get isThere(): boolean {
    const { registered, gone, socket } = this.#visit ?? {};
    return this.#listener !== undefined || (registered !== undefined && !gone && socket !== undefined);
  }

  isOn(visit: Visit): boolean {
    return this.#visit === visit;
  }

  connect(): void {
    if (this.#visit?.isOver) this.#visit = undefined;
    if (this.#visit || this.#listener) return;
    const { now, head, isHere, visit, broker } = this.#around;
    const { kind, beginning, channels } = this.plan;
    const isNew = this.#lastEventId === undefined;
    if (isNew && beginning === "foreign") this.start = 0;
    const asked = this.#lastEventId ?? (beginning === "foreign" ? "elsewhere-7" : undefined);
    if (kind === "client") {
      this.#visit = visit(this, asked);
      return;
    }
    // No id tells it where it begins.
    if (isNew && isHere && beginning === "live") this.start = this.floor = head();
    if (isNew && isHere && beginning === "earliest") this.#beginsAt(head(), now());
    this.#listener = broker(this).listen({
      ...(channels.length > 0 ? { channels: channels } : {}),
      lastEventId: asked,
      ...(beginning === "earliest" ? { from: "earliest" } : {}),
    });
  }

  /** Who is not told where it begins has a claim to what comes from now on. */
  claim(): void {
    if (this.start === Infinity) this.start = this.#around.head();
  }

  read(bytes: number): void {
    this.connect();
    if (this.#visit) {
      for (const [item, at] of this.#visit.socket?.read(bytes) ?? []) this.#see(item, at);
      return;
    }
    for (let count = 0; count < Math.min(bytes / 8, 8); count++) this.#wait();
  }

  /** Makes room for all that comes. */
  widen(): void {
    this.#visit?.socket?.widen(Infinity);
  }

  drop(how: Drop): void {
    this.#visit?.drop(how);
    this.#visit = undefined;
    void this.#listener?.return?.();
    this.#listener = undefined;
  }

  /** It asks for all that is kept, and has a claim to all that comes. */
  #beginsAt(head: number, time: number): void {
    this.start = head;
    if (this.#around.isHere) this.since = time;
  }

  #wait(): void {
    const listener = this.#listener;
    void listener?.next().then(({ done, value }) => {
      if (!done) this.#see(value, this.#around.now());
      // Its broker has closed.
      else if (listener === this.#listener) this.#listener = undefined;
    });
  }

  #see(item: Item | Listened, at: number): void {
    const { id, type } = item;
    const registered = this.#visit?.registered;
    if (type === "ready" && this.#lastEventId === undefined && registered) {
      if (id !== undefined && this.plan.beginning === "live") this.start = this.floor = this.#around.place(id);
      else if (this.plan.beginning === "earliest") this.#beginsAt(registered.head, registered.at);
    }
    this.#lastEventId = id ?? this.#lastEventId;
    const place = (of: string): string => `x-${this.#around.place(of)}`;
    if (type === "event") this.seen.push({ type, id: place(id), data: item.data, at });
    if (type !== "gap") return;
    const channels = item.channels.map((name) => (name === "fanwire-inbox" ? inboxName(this.plan.id) : name));
    const after = item.after === null ? null : place(item.after);
    this.seen.push({ type, id: place(id), channels, after, through: place(item.through), at });
  }
}
