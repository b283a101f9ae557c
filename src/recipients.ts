import type { Client } from "./client.ts";
import { now } from "./runtime.ts";

/** Ids remembered after their clients left, at the most; beyond it the oldest are forgotten. */
const MAX_REMEMBERED = 100_000;

/** Who can be sent to: the clients of each id, and for a while the ids of those who left. */
export class Recipients {
  readonly #clients = new Map<string, Set<Client>>();
  readonly #lingering: Deadlines;
  readonly #barred = new Deadlines();
  readonly #linger: number;

  constructor(linger: number) {
    this.#linger = linger;
    this.#lingering = new Deadlines();
  }

  get size(): number {
    return this.#clients.size;
  }

  add(client: Client): void {
    const clients = this.#clients.get(client.id);
    if (clients) clients.add(client);
    else this.#clients.set(client.id, new Set([client]));
    this.#lingering.delete(client.id);
  }

  /** By the connection, never by the id alone: another one may have come meanwhile. */
  delete(client: Client): void {
    const clients = this.#clients.get(client.id);
    if (!clients?.delete(client) || clients.size > 0) return;
    this.#clients.delete(client.id);
    this.#lingering.set(client.id, this.#linger);
  }

  of(id: string): readonly Client[] {
    return [...(this.#clients.get(id) ?? [])];
  }

  /** Whether there is somebody to send to: a client, or one that left within `inboxLinger`. */
  has(id: string): boolean {
    return this.#clients.has(id) || this.#lingering.has(id);
  }

  /** Turns an id away for so many milliseconds. */
  bar(id: string, ms: number): void {
    this.#barred.set(id, ms);
  }

  isBarred(id: string): boolean {
    return this.#barred.has(id);
  }

  clear(): void {
    this.#lingering.clear();
    this.#barred.clear();
  }
}

/** Ids with an end each. No timer: what is over goes when the next one comes. */
class Deadlines {
  readonly #ends = new Map<string, number>();

  set(id: string, ms: number): void {
    const time = now();
    this.#ends.delete(id);
    for (const [oldest, end] of this.#ends) {
      if (end > time && this.#ends.size < MAX_REMEMBERED) break;
      this.#ends.delete(oldest);
    }
    if (ms > 0) this.#ends.set(id, time + ms);
  }

  has(id: string): boolean {
    return (this.#ends.get(id) ?? 0) > now();
  }

  delete(id: string): void {
    this.#ends.delete(id);
  }

  clear(): void {
    this.#ends.clear();
  }
}
