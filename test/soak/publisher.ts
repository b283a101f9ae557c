import type { Random } from "../redis/chaos/random.ts";
import type { Stage } from "../support/servers/server.ts";
import type { Guest } from "./guests.ts";
import { CHANNELS, SHARED_IDS, STEADY_IDS } from "./names.ts";
import type { Tally } from "./tally.ts";

/** Milliseconds between two events. */
const PACE = 50;
/** Milliseconds in which an event has to be taken, however often it is tried. */
const PATIENCE = 30_000;

/** Publishes through HTTP, all the time, to everybody, to channels and to single clients. */
export class Publisher {
  readonly #stage: Stage;
  readonly #random: Random;
  readonly #tally: Tally;
  readonly #guests: { pick(random: Random): Guest | undefined };
  /** How many were published to each target that stays. */
  readonly counts = new Map<string, number>();
  #serial = 0;
  #running: Promise<void> | undefined;
  #isOver = false;

  constructor(stage: Stage, random: Random, tally: Tally, guests: { pick(random: Random): Guest | undefined }) {
    this.#stage = stage;
    this.#random = random;
    this.#tally = tally;
    this.#guests = guests;
  }

  start(): void {
    this.#isOver = false;
    this.#running = this.#run();
  }

  /** Resolves when the last event was taken. */
  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#isOver) {
      const next = performance.now() + PACE;
      await this.#publish();
      const rest = next - performance.now();
      if (rest > 0) await new Promise((resolve) => setTimeout(resolve, rest));
    }
  }

  async #publish(): Promise<void> {
    const random = this.#random;
    const kind = this.#serial % 4;
    const guest = kind === 3 ? this.#guests.pick(random) : undefined;
    if (guest) {
      // A guest's own targets go with it.
      const target = guest.id !== undefined && random.chance(0.5) ? "id" : "channel";
      const number = guest.numbers[target] + 1;
      const name = target === "id" ? (guest.id as string) : guest.channel;
      if (await this.#send(`?${target}=${name}`, `${name} ${number}`, true)) guest.numbers[target] = number;
      return;
    }
    if (kind === 0) return await this.#count("", "all");
    if (kind === 1) return await this.#to("channel", random.pick(CHANNELS));
    await this.#to("id", random.pick(random.chance(0.5) ? SHARED_IDS : STEADY_IDS));
  }

  #to(kind: "channel" | "id", name: string): Promise<void> {
    return this.#count(`?${kind}=${name}`, name);
  }

  async #count(query: string, target: string): Promise<void> {
    const number = (this.counts.get(target) ?? 0) + 1;
    if (await this.#send(query, `${target} ${number}`, !STEADY_IDS.includes(target))) this.counts.set(target, number);
  }

  /** Whether it was published. Nobody may be there any more to whom it is, if it `mayMiss`. */
  async #send(query: string, data: string, mayMiss: boolean): Promise<boolean> {
    const key = `key-${++this.#serial}`;
    const first = await this.#try(query, data, key);
    if (first.status === 404 && mayMiss) return false;
    if (first.status !== 200) {
      this.#tally.fault(`publishing ${data}: ${first.status} ${first.text}`);
      return false;
    }
    this.#tally.published++;
    if (!this.#random.chance(0.1)) return true;
    const second = await this.#try(query, data, key);
    this.#tally.repeated++;
    if (second.status !== 404 && idOf(second.text) !== idOf(first.text))
      this.#tally.fault(`publishing ${data} twice: ${first.text}, then ${second.status} ${second.text}`);
    return true;
  }

  /** With its key, so that it may be tried again when a connection that was idle is closed under it. */
  async #try(query: string, body: string, key: string): Promise<{ status: number; text: string }> {
    const until = performance.now() + PATIENCE;
    for (;;) {
      try {
        const response = await fetch(this.#stage.server.url + this.#stage.path(`broadcast${query}`), {
          method: "POST",
          headers: { authorization: "Bearer secret", "idempotency-key": key },
          body,
          signal: AbortSignal.timeout(PATIENCE),
        });
        return { status: response.status, text: await response.text() };
      } catch (error) {
        if (performance.now() > until) return { status: 0, text: String(error) };
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }
}

const idOf = (text: string): unknown => (text.startsWith("{") ? (JSON.parse(text) as { id?: unknown }).id : text);
