import type { Position, SharedLog, SharedLogListener } from "../../../src/engine.ts";
import type { Clock } from "../clock.ts";
import { MemoryLog } from "./memory-log.ts";
import { MemorySession } from "./memory-session.ts";

/** An event that was appended. */
export interface AppendedEvent extends Position {
  readonly keys: readonly string[];
  readonly text: string;
  /** The time of the append. */
  readonly at: number;
}

/** Options of {@link MemorySharedLog}. */
interface MemorySharedLogOptions {
  /** Events that are retained of each channel. @default Infinity */
  readonly retention?: number;
  /** The largest number of events in a page. @default Infinity */
  readonly pageSize?: number;
  /** Sessions are not connected before `setCommands(true)` and `setFeed(true)`. @default false */
  readonly isAway?: boolean;
  /** Finds the newest events of each channel for `last`. @default true */
  readonly knowsLast?: boolean;
  /** The clock that delays are measured by. @default time counts calls of `advanceTurn` */
  readonly clock?: Clock;
}

/** Names that expire; without a clock they never do. */
class ExpiringNames {
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
 * A shared log in this process. The store keeps the contract; tests cause faults through its sessions. Everything arrives in a microtask, or
 * after a delay, which a clock measures or calls of `advanceTurn`.
 */
export class MemorySharedLog implements SharedLog {
  readonly pageSize: number;
  readonly isAway: boolean;
  readonly knowsLast: boolean;
  readonly sessions: MemorySession[] = [];
  /** All events that were ever appended, in order. */
  readonly appended: AppendedEvent[] = [];
  /** All epochs, in order. */
  readonly epochs: string[] = [];
  readonly barred: ExpiringNames = new ExpiringNames(() => this.#clock?.time);
  readonly lingering: ExpiringNames = new ExpiringNames(() => this.#clock?.time);
  readonly idempotencyKeys: Map<string, { readonly print: string; readonly epoch: string; readonly seq: number }> =
    new Map();
  /** The keys of each page that was read. */
  readonly reads: string[][] = [];
  time = 0;
  readonly #retention: number;
  readonly #clock: Clock | undefined;
  #log: MemoryLog | undefined;

  constructor({
    retention = Infinity,
    pageSize: page = Infinity,
    isAway = false,
    knowsLast = true,
    clock,
  }: MemorySharedLogOptions = {}) {
    this.#retention = retention;
    this.#clock = clock;
    this.pageSize = page;
    this.isAway = isAway;
    this.knowsLast = knowsLast;
  }

  open(listener: SharedLogListener): MemorySession {
    const session = new MemorySession(this, listener);
    this.sessions.push(session);
    return session;
  }

  /** Advances the time by one, where there is no clock. */
  advanceTurn(): void {
    this.time++;
    for (const session of this.sessions) session.turn();
  }

  get now(): number {
    return this.#clock?.time ?? this.time;
  }

  /** Runs a task at a time. Without a clock, a task in the future is run by `advanceTurn`. */
  at(time: number, task: () => void): void {
    if (time <= this.now) queueMicrotask(task);
    else this.#clock?.at(time, task);
  }

  /** The log, if there is one. */
  get log(): MemoryLog | undefined {
    return this.#log;
  }

  /** Returns the log, after it was replaced if it is behind a position that a process knows. */
  provenLog(seen: Position | undefined): MemoryLog {
    if (!this.#log || (seen?.epoch === this.#log.epoch && seen.seq > this.#log.head)) this.startNewEpoch();
    return this.#log as MemoryLog;
  }

  /** Replaces the log by an empty one. */
  startNewEpoch(): void {
    this.#log = new MemoryLog(`e${this.epochs.length + 1}`, this.#retention);
    this.epochs.push(this.#log.epoch);
  }

  /** Loses the log. The next command that needs one creates it. */
  loseLog(): void {
    this.#log = undefined;
  }

  append(seen: Position | undefined, keys: readonly string[], text: string): AppendedEvent {
    const log = this.provenLog(seen);
    const previous = keys.map((key) => log.lastOf(key));
    const { seq } = log.append(keys, text);
    const appended = { epoch: log.epoch, seq, keys, text, at: this.now };
    this.appended.push(appended);
    for (const session of this.sessions) session.sendEvent({ ...appended, previous });
    return appended;
  }
}
