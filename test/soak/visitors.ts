// Clients that come and go.
import type { Random } from "../support/random.ts";
import { Client } from "./client.ts";
import { CHANNELS, SHARED_IDS } from "./names.ts";
import type { Tally } from "./tally.ts";

/** Connections per second, including visitors who come back. */
const CONNECTS_PER_SECOND = 50;
/** Milliseconds between two steps of the simulation. */
const STEP_MS = 20;
/** The most connections of one step, after the machine was busy. */
const MAX_CONNECTS_PER_STEP = 5;
/** The longest time that a connection lasts, and that a visitor is away, in milliseconds. */
const MAX_STAY_MS = 4_000;
const MAX_PAUSE_MS = 800;

/** A client that stays for a while. */
export interface Visitor {
  readonly client: Client;
  /** A channel of this visitor alone. */
  readonly channel: string;
  /** A client id of this visitor alone. */
  readonly id: string | undefined;
  /** The number of the last event published to its channel and its id. */
  readonly numbers: { channel: number; id: number };
  /** Whether it leaves before the response. */
  readonly leavesEarly: boolean;
  returns: number;
  /** The time of its next action, to leave or to come back, as of `performance.now()`. */
  due: number;
}

/** All visitors of one broker. */
export class Visitors {
  readonly #url: string;
  readonly #random: Random;
  readonly #tally: Tally;
  readonly #retentionMs: number;
  readonly #present = new Set<Visitor>();
  #serial = 0;

  constructor(url: string, random: Random, tally: Tally, retentionMs: number) {
    this.#url = url;
    this.#random = random;
    this.#tally = tally;
    this.#retentionMs = retentionMs;
  }

  /** Picks a visitor whose stream has begun, also one that is away for a while. */
  pick(random: Random): Visitor | undefined {
    for (const visitor of random.sample([...this.#present], 3)) if (visitor.client.isReady) return visitor;
    return undefined;
  }

  /** Lets visitors come and go for `ms` milliseconds, and then leave for good. */
  async run(ms: number): Promise<void> {
    const start = performance.now();
    const before = this.#tally.connects;
    for (let time = start; time < start + ms; time = performance.now()) {
      for (const visitor of this.#present) if (visitor.due <= time) this.#act(visitor);
      const wanted = Math.floor(((time - start) / 1000) * CONNECTS_PER_SECOND) - (this.#tally.connects - before);
      for (let count = 0; count < Math.min(wanted, MAX_CONNECTS_PER_STEP); count++) this.#addVisitor();
      await new Promise((resolve) => setTimeout(resolve, STEP_MS));
    }
    for (const visitor of this.#present) this.#leave(visitor);
    this.#present.clear();
  }

  #addVisitor(): void {
    const random = this.#random;
    const serial = ++this.#serial;
    const channel = `channel-${serial}`;
    const idKind = random.integer(0, 2);
    const id = idKind === 0 ? `visitor-${serial}` : undefined;
    const clientId = idKind === 1 ? random.pick(SHARED_IDS) : id;
    const query = new URLSearchParams([
      ...(clientId === undefined ? [] : [["id", clientId]]),
      ["channel", channel],
      ["channel", random.pick(CHANNELS)],
    ]);
    const ownTargets = id === undefined ? [channel] : [channel, id];
    const client = new Client(`${this.#url}?${query}`, this.#tally, this.#retentionMs, ownTargets);
    const leavesEarly = random.chance(0.05);
    const returns = leavesEarly || random.chance(0.8) ? 0 : random.integer(1, 2);
    const visitor: Visitor = { client, channel, id, numbers: { channel: 0, id: 0 }, leavesEarly, returns, due: 0 };
    this.#present.add(visitor);
    this.#connect(visitor);
  }

  #connect(visitor: Visitor): void {
    const random = this.#random;
    visitor.client.connect();
    const stayMs = random.integer(visitor.leavesEarly ? 0 : 30, visitor.leavesEarly ? 20 : MAX_STAY_MS);
    visitor.due = performance.now() + stayMs;
    if (!visitor.leavesEarly && random.chance(0.1)) visitor.client.pause(random.integer(50, 1_000));
  }

  #act(visitor: Visitor): void {
    if (!visitor.client.isConnected) {
      visitor.returns--;
      this.#connect(visitor);
      return;
    }
    this.#leave(visitor);
    if (visitor.returns === 0) this.#present.delete(visitor);
    else visitor.due = performance.now() + this.#random.integer(0, MAX_PAUSE_MS);
  }

  #leave(visitor: Visitor): void {
    if (visitor.leavesEarly) this.#tally.early++;
    visitor.client.leave(visitor.leavesEarly || this.#random.chance(0.35) ? "RST" : "FIN");
  }
}
