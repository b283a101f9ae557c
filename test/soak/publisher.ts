// Publishes events during a soak run.
import type { Random } from "../support/random.ts";
import type { TestBroker } from "../support/servers/server.ts";
import { CHANNELS, SHARED_IDS, STEADY_IDS } from "./names.ts";
import type { Tally } from "./tally.ts";
import type { Visitor } from "./visitors.ts";

/** Milliseconds between two events. */
const INTERVAL_MS = 50;
/** Milliseconds within which an event has to be accepted, including repeats. */
const MAX_WAIT_MS = 30_000;

/** Publishes over HTTP all the time: to every client, to channels and to single clients. */
export class Publisher {
  readonly #broker: TestBroker;
  readonly #random: Random;
  readonly #tally: Tally;
  readonly #visitors: { pick(random: Random): Visitor | undefined };
  /** The number of the last event of each target that stays. */
  readonly counts = new Map<string, number>();
  #serial = 0;
  #running: Promise<void> | undefined;
  #isStopped = false;

  constructor(
    broker: TestBroker,
    random: Random,
    tally: Tally,
    visitors: { pick(random: Random): Visitor | undefined },
  ) {
    this.#broker = broker;
    this.#random = random;
    this.#tally = tally;
    this.#visitors = visitors;
  }

  start(): void {
    this.#isStopped = false;
    this.#running = this.#run();
  }

  /** Resolves when the last event was accepted. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#isStopped) {
      const next = performance.now() + INTERVAL_MS;
      await this.#publish();
      const waitMs = next - performance.now();
      if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
  }

  async #publish(): Promise<void> {
    const random = this.#random;
    const kind = this.#serial % 4;
    const visitor = kind === 3 ? this.#visitors.pick(random) : undefined;
    if (visitor) {
      // The counts of a visitor's own targets end with it.
      const target = visitor.id !== undefined && random.chance(0.5) ? "id" : "channel";
      const number = visitor.numbers[target] + 1;
      const name = target === "id" ? (visitor.id as string) : visitor.channel;
      if (await this.#send(`?${target}=${name}`, `${name} ${number}`, true)) visitor.numbers[target] = number;
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

  /** Publishes an event. Returns whether it was published. With `mayMiss` the recipient may have left. */
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

  /** Sends an event with its idempotency key, so that it may be sent again when an idle connection is closed under it. */
  async #try(query: string, body: string, key: string): Promise<{ status: number; text: string }> {
    const deadline = performance.now() + MAX_WAIT_MS;
    for (;;) {
      try {
        const response = await fetch(this.#broker.server.url + this.#broker.path(`broadcast${query}`), {
          method: "POST",
          headers: { authorization: "Bearer secret", "idempotency-key": key },
          body,
          signal: AbortSignal.timeout(MAX_WAIT_MS),
        });
        return { status: response.status, text: await response.text() };
      } catch (error) {
        if (performance.now() > deadline) return { status: 0, text: String(error) };
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }
}

const idOf = (text: string): unknown => (text.startsWith("{") ? (JSON.parse(text) as { id?: unknown }).id : text);
