// Sends heartbeats to idle connections.
import { every } from "../base/runtime.ts";

/** An idle connection to keep alive. */
export interface HeartbeatTarget {
  /** The tick at which it was last sent anything. */
  lastSentTick: number;
  /** The slot it is filed in while it is watched. */
  slot: number;
}

/**
 * Calls `send` for each target that was sent nothing for `interval` milliseconds. One timer serves all targets. A target that was sent
 * something in the meantime is only looked at again when it could be due.
 */
export class Heartbeat<T extends HeartbeatTarget> {
  tick = 0;
  readonly #interval: number;
  readonly #send: (idle: T) => void;
  /** Parts of the interval. They spread heartbeats in time, and none is later than by one part. */
  readonly #slots: Set<T>[];
  #watched = 0;
  #stopTimer: (() => void) | undefined;

  constructor(interval: number, send: (idle: T) => void, slots = 16) {
    this.#interval = interval;
    this.#slots = Array.from({ length: slots }, () => new Set<T>());
    this.#send = send;
  }

  add(target: T): void {
    if (this.#interval === Infinity) return;
    target.lastSentTick = this.tick;
    this.#file(target);
    this.#watched++;
    this.#stopTimer ??= every(this.#interval / this.#slots.length, () => this.#onTick());
  }

  delete(target: T): void {
    if (!this.#slots[target.slot]?.delete(target)) return;
    if (--this.#watched > 0) return;
    this.#stopTimer?.();
    this.#stopTimer = undefined;
  }

  /** Returns the milliseconds since a tick, to within one part of the interval. */
  since(tick: number): number {
    return ((this.tick - tick) * this.#interval) / this.#slots.length;
  }

  #file(target: T): void {
    target.slot = target.lastSentTick % this.#slots.length;
    this.#slots[target.slot]?.add(target);
  }

  #onTick(): void {
    this.tick++;
    const slot = this.#slots[this.tick % this.#slots.length] as Set<T>;
    // A copy: a target that is filed or added during this loop is not due.
    for (const target of [...slot]) {
      if (!slot.has(target)) continue;
      if (this.tick - target.lastSentTick >= this.#slots.length) {
        target.lastSentTick = this.tick;
        this.#send(target);
      } else {
        slot.delete(target);
        this.#file(target);
      }
    }
  }
}
