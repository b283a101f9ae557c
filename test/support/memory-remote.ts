import type { Remote, RemoteListener } from "../../src/remote.ts";
import { MemoryLog } from "./memory-log.ts";
import { MemorySession } from "./memory-session.ts";

/** A position that a process knows of. */
export type Seen = { readonly epoch: string; readonly seq: number } | undefined;

/** An event as it was appended. */
export interface Appending {
  readonly epoch: string;
  readonly seq: number;
  readonly keys: readonly string[];
  readonly text: string;
}

/** How a store begins. */
interface MemoryStoreOptions {
  /** Events of each channel that are kept. @default Infinity */
  readonly retention?: number;
  /** Records in a page, at the most. @default Infinity */
  readonly page?: number;
  /** Nothing can be asked of it until a session's `commands(true)` and `feed(true)`. @default false */
  readonly isAway?: boolean;
}

/**
 * A store in this process that several brokers share. It keeps the contract; its sessions have the faults. It has no timers: what is not
 * delayed comes in a microtask, what is comes after so many calls of `turn`.
 */
export class MemoryStore implements Remote {
  readonly page: number;
  readonly isAway: boolean;
  readonly sessions: MemorySession[] = [];
  /** Everything that was ever appended, in order. */
  readonly appended: Appending[] = [];
  /** The epochs that there were, in order. */
  readonly epochs: string[] = [];
  readonly barred: Set<string> = new Set();
  readonly lingering: Set<string> = new Set();
  readonly nonces: Map<string, { readonly print: string; readonly epoch: string; readonly seq: number }> = new Map();
  /** How often a page was read, and the keys of each. */
  readonly reads: string[][] = [];
  time = 0;
  readonly #retention: number;
  #log: MemoryLog | undefined;

  constructor({ retention = Infinity, page = Infinity, isAway = false }: MemoryStoreOptions = {}) {
    this.#retention = retention;
    this.page = page;
    this.isAway = isAway;
  }

  open(listener: RemoteListener): MemorySession {
    const session = new MemorySession(this, listener);
    this.sessions.push(session);
    return session;
  }

  /** What was delayed comes nearer by one. */
  turn(): void {
    this.time++;
    for (const session of this.sessions) session.turn();
  }

  /** The log, if there is one. */
  get log(): MemoryLog | undefined {
    return this.#log;
  }

  /** The log for who knows this position of it: another one, if it is behind. */
  proved(seen: Seen): MemoryLog {
    if (!this.#log || (seen?.epoch === this.#log.epoch && seen.seq > this.#log.head)) this.beginAnew();
    return this.#log as MemoryLog;
  }

  /** Loses everything, and has another log at once. */
  beginAnew(): void {
    this.#log = new MemoryLog(`e${this.epochs.length + 1}`, this.#retention);
    this.epochs.push(this.#log.epoch);
  }

  /** Loses everything. */
  lose(): void {
    this.#log = undefined;
  }

  append(seen: Seen, keys: readonly string[], text: string): Appending {
    const log = this.proved(seen);
    const previous = keys.map((key) => log.lastOf(key));
    const { seq } = log.append(keys, text);
    const appending = { epoch: log.epoch, seq, keys, text };
    this.appended.push(appending);
    for (const session of this.sessions) session.tell({ ...appending, previous });
    return appending;
  }
}
