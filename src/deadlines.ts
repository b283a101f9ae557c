import { now } from "./runtime.ts";

/** Names remembered at the most; beyond it the oldest are forgotten. */
const MOST = 100_000;

/** Names with an end each. No timer: what is over goes when the next one comes. */
export class Deadlines {
  readonly #ends = new Map<string, number>();

  set(name: string, ms: number): void {
    const time = now();
    this.#ends.delete(name);
    for (const [oldest, end] of this.#ends) {
      if (end > time && this.#ends.size < MOST) break;
      this.#ends.delete(oldest);
    }
    if (ms > 0) this.#ends.set(name, time + ms);
  }

  has(name: string): boolean {
    return (this.#ends.get(name) ?? 0) > now();
  }

  clear(): void {
    this.#ends.clear();
  }
}
