// Lets a bounded number of questions to the store be under way, in the order in which they were asked.

/** Questions at a time. A publish must not wait behind those of a thousand clients that connect. */
const MAX_CONCURRENT = 4;

/** Questions that clients cause when they connect. All of them share one queue. */
export class Lookups {
  readonly #queue: (() => void)[] = [];
  #running = 0;

  /** Asks when it is its turn. Resolves and rejects as `ask` does. */
  async run<Answer>(ask: () => Promise<Answer>): Promise<Answer> {
    if (this.#running >= MAX_CONCURRENT) await new Promise<void>((resolve) => void this.#queue.push(resolve));
    else this.#running++;
    try {
      return await ask();
    } finally {
      const next = this.#queue.shift();
      if (next) next();
      else this.#running--;
    }
  }
}
