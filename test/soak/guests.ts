import type { Random } from "../redis/chaos/random.ts";
import { CHANNELS, SHARED_IDS } from "./names.ts";
import type { Tally } from "./tally.ts";
import { Visitor } from "./visitor.ts";

/** Connections per second, those of guests who come back included. */
const RATE = 50;
/** Milliseconds between two looks at who is due. */
const STEP = 20;
/** So many connect in one step at the most, when the machine was away. */
const AT_ONCE = 5;
/** Milliseconds that a connection lasts, and that a guest is away, at the most. */
const LONGEST_STAY = 4_000;
const LONGEST_PAUSE = 800;

/** Somebody who comes for a while. */
export interface Guest {
  readonly visitor: Visitor;
  /** A channel that nobody else ever reads. */
  readonly channel: string;
  /** An id that nobody else ever has. */
  readonly id: string | undefined;
  /** How many were published to it. */
  readonly numbers: { channel: number; id: number };
  /** It leaves before it is answered. */
  readonly isHasty: boolean;
  returns: number;
  /** When it does the next thing, which is to leave, or to come back. */
  due: number;
}

/** Clients that come and go. */
export class Guests {
  readonly #url: string;
  readonly #random: Random;
  readonly #tally: Tally;
  readonly #retention: number;
  readonly #present = new Set<Guest>();
  #serial = 0;

  constructor(url: string, random: Random, tally: Tally, retention: number) {
    this.#url = url;
    this.#random = random;
    this.#tally = tally;
    this.#retention = retention;
  }

  /** One who has been told that it is connected, now or before it went for a while. */
  pick(random: Random): Guest | undefined {
    for (const guest of random.sample([...this.#present], 3)) if (guest.visitor.isReady) return guest;
    return undefined;
  }

  /** Has them come and go for so many milliseconds, then has all of them leave for good. */
  async churn(ms: number): Promise<void> {
    const began = performance.now();
    const before = this.#tally.connects;
    for (let time = began; time < began + ms; time = performance.now()) {
      for (const guest of this.#present) if (guest.due <= time) this.#act(guest);
      const wanted = Math.floor(((time - began) / 1000) * RATE) - (this.#tally.connects - before);
      for (let count = 0; count < Math.min(wanted, AT_ONCE); count++) this.#arrive();
      await new Promise((resolve) => setTimeout(resolve, STEP));
    }
    for (const guest of this.#present) this.#leave(guest);
    this.#present.clear();
  }

  #arrive(): void {
    const random = this.#random;
    const serial = ++this.#serial;
    const channel = `channel-${serial}`;
    const kind = random.integer(0, 2);
    const id = kind === 0 ? `guest-${serial}` : undefined;
    const named = kind === 1 ? random.pick(SHARED_IDS) : id;
    const query = new URLSearchParams([
      ...(named === undefined ? [] : [["id", named]]),
      ["channel", channel],
      ["channel", random.pick(CHANNELS)],
    ]);
    const own = id === undefined ? [channel] : [channel, id];
    const visitor = new Visitor(`${this.#url}?${query}`, this.#tally, this.#retention, own);
    const isHasty = random.chance(0.05);
    const returns = isHasty || random.chance(0.8) ? 0 : random.integer(1, 2);
    const guest: Guest = { visitor, channel, id, numbers: { channel: 0, id: 0 }, isHasty, returns, due: 0 };
    this.#present.add(guest);
    this.#enter(guest);
  }

  #enter(guest: Guest): void {
    const random = this.#random;
    guest.visitor.connect();
    const stay = random.integer(guest.isHasty ? 0 : 30, guest.isHasty ? 20 : LONGEST_STAY);
    guest.due = performance.now() + stay;
    if (!guest.isHasty && random.chance(0.1)) guest.visitor.pause(random.integer(50, 1_000));
  }

  #act(guest: Guest): void {
    if (!guest.visitor.isConnected) {
      guest.returns--;
      this.#enter(guest);
      return;
    }
    this.#leave(guest);
    if (guest.returns === 0) this.#present.delete(guest);
    else guest.due = performance.now() + this.#random.integer(0, LONGEST_PAUSE);
  }

  #leave(guest: Guest): void {
    if (guest.isHasty) this.#tally.hasty++;
    guest.visitor.leave(guest.isHasty || this.#random.chance(0.35) ? "RST" : "FIN");
  }
}
