import { every } from "../base/runtime.ts";

/** What is kept alive. */
export interface HeartbeatTarget {
  /** The tick at which it was last given anything. */
  lastSentTick: number;
  /** Its slot; kept here while it is watched. */
  slot: number;
}

/** One timer for all heartbeats. Who was given something meanwhile is only looked at again when it could be due. */
export class Heartbeat<T extends HeartbeatTarget> {
  tick = 0;
  readonly #interval: number;
  readonly #send: (idle: T) => void;
  /** Parts of the interval, so that not all heartbeats leave at once, and none is later than by one part. */
  readonly #slots: Set<T>[];
  #watched = 0;
  #stop: (() => void) | undefined;

  constructor(interval: number, send: (idle: T) => void, slots = 16) {
    this.#interval = interval;
    this.#slots = Array.from({ length: slots }, () => new Set<T>());
    this.#send = send;
  }

  add(pulse: T): void {
    if (this.#interval === Infinity) return;
    pulse.lastSentTick = this.tick;
    this.#file(pulse);
    this.#watched++;
    this.#stop ??= every(this.#interval / this.#slots.length, () => this.#turn());
  }

  delete(pulse: T): void {
    if (!this.#slots[pulse.slot]?.delete(pulse)) return;
    if (--this.#watched > 0) return;
    this.#stop?.();
    this.#stop = undefined;
  }

  /** Milliseconds since a tick, to within one part of the interval. */
  since(tick: number): number {
    return ((this.tick - tick) * this.#interval) / this.#slots.length;
  }

  #file(pulse: T): void {
    pulse.slot = pulse.lastSentTick % this.#slots.length;
    this.#slots[pulse.slot]?.add(pulse);
  }

  #turn(): void {
    this.tick++;
    const slot = this.#slots[this.tick % this.#slots.length] as Set<T>;
    // A copy: who is filed or added meanwhile is not due.
    for (const pulse of [...slot]) {
      if (!slot.has(pulse)) continue;
      if (this.tick - pulse.lastSentTick >= this.#slots.length) {
        pulse.lastSentTick = this.tick;
        this.#send(pulse);
      } else {
        slot.delete(pulse);
        this.#file(pulse);
      }
    }
  }
}
