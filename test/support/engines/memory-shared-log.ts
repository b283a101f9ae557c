import type { SharedLog, SharedLogListener } from "../../../src/shared-log/shared-log.ts";
import type { Clock } from "../clock.ts";
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
  /** When. */
  readonly at: number;
}

/** How a store begins. */
interface MemoryStoreOptions {
  /** Events of each channel that are kept. @default Infinity */
  readonly retention?: number;
  /** Records in a page, at the most. @default Infinity */
  readonly page?: number;
  /** Nothing can be asked of it until a session's `commands(true)` and `feed(true)`. @default false */
  readonly isAway?: boolean;
  /** What delays are milliseconds of. @default calls of `turn` are counted */
  readonly clock?: Clock;
}

/** Names that are remembered for a while; for ever, where there is no clock. */
class Lasting {
  readonly #ends = new Map<string, number>();
  readonly #time: () => number | undefined;

  constructor(time: () => number | undefined) {
    this.#time = time;
  }

  add(name: string, ms: number): void {
    const end = (this.#time() ?? Infinity) + ms;
    this.#ends.set(name, Math.max(end, this.#ends.get(name) ?? 0));
  }

  has(name: string): boolean {
    return (this.#ends.get(name) ?? 0) > (this.#time() ?? 0);
  }
}

/**
 * A store in this process that several brokers share. It keeps the contract; its sessions have the faults. What is not delayed comes in a
 * microtask; what is comes by its clock, or after so many calls of `turn`.
 */
export class MemoryStore implements SharedLog {
  readonly page: number;
  readonly isAway: boolean;
  readonly sessions: MemorySession[] = [];
  /** Everything that was ever appended, in order. */
  readonly appended: Appending[] = [];
  /** The epochs that there were, in order. */
  readonly epochs: string[] = [];
  readonly barred: Lasting = new Lasting(() => this.#clock?.time);
  readonly lingering: Lasting = new Lasting(() => this.#clock?.time);
  readonly nonces: Map<string, { readonly print: string; readonly epoch: string; readonly seq: number }> = new Map();
  /** How often a page was read, and the keys of each. */
  readonly reads: string[][] = [];
  time = 0;
  readonly #retention: number;
  readonly #clock: Clock | undefined;
  #log: MemoryLog | undefined;

  constructor({ retention = Infinity, page = Infinity, isAway = false, clock }: MemoryStoreOptions = {}) {
    this.#retention = retention;
    this.#clock = clock;
    this.page = page;
    this.isAway = isAway;
  }

  open(listener: SharedLogListener): MemorySession {
    const session = new MemorySession(this, listener);
    this.sessions.push(session);
    return session;
  }

  /** What was delayed comes nearer by one. */
  turn(): void {
    this.time++;
    for (const session of this.sessions) session.turn();
  }

  get now(): number {
    return this.#clock?.time ?? this.time;
  }

  /** Has something done at a time; if that is in the future and there is no clock, in the turn when it has come. */
  at(time: number, task: () => void): void {
    if (time <= this.now) queueMicrotask(task);
    else this.#clock?.at(time, task);
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
    const appending = { epoch: log.epoch, seq, keys, text, at: this.now };
    this.appended.push(appending);
    for (const session of this.sessions) session.tell({ ...appending, previous });
    return appending;
  }
}
