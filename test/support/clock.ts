// A clock for tests. Time passes only when a test says so, and turns of the event loop are counted.
import { runtime } from "./runtime.ts";

interface Timer {
  at: number;
  /** The period of an interval, in milliseconds. */
  readonly every?: number;
  /** Whether the test itself set the timer. */
  readonly isOwn?: boolean;
  readonly task: () => void;
}

/** A task that runs in the next turn of the event loop. */
interface Immediate {
  readonly task: () => void;
}

/** The longest chain of microtasks that `quickTurn` waits for. */
const MAX_MICROTASKS = 200;

interface Immediates {
  setImmediate?: (task: () => void) => unknown;
  clearImmediate?: (task: unknown) => void;
}
const { setImmediate: realImmediate } = globalThis as Immediates;
const realTimeout = globalThis.setTimeout;

/** Resolves after a turn of the event loop. */
const realTurn = (): Promise<void> =>
  new Promise((resolve) => {
    if (realImmediate) realImmediate.call(globalThis, resolve);
    else realTimeout.call(globalThis, resolve, 0);
  });

/** Runs all pending microtasks without a turn of the event loop. On workerd a turn takes a millisecond, too long for thousands of them. */
async function quickTurn(): Promise<void> {
  for (let count = 0; count < MAX_MICROTASKS; count++) await undefined;
}

/** Replaces the runtime's timers and clocks while `run` runs. */
export class Clock {
  /** Milliseconds since the clock was created. */
  time = 0;
  readonly #timers = new Set<Timer>();
  #immediates = new Set<Immediate>();
  /** Tasks that run in the current turn. */
  #due = new Set<Immediate>();
  readonly #onTurn: () => void;
  readonly #drain: () => Promise<void>;

  /**
   * Calls `onTurn` in each turn. `isQuick` is for tests that wait for nothing of the runtime itself, such as the body of a plain response:
   * then microtasks are enough.
   */
  constructor(onTurn: () => void = () => undefined, isQuick = false) {
    this.#onTurn = onTurn;
    this.#drain = isQuick && runtime === "workerd" ? quickTurn : realTurn;
  }

  /** Milliseconds until each timer that is not cleared, without the test's own. */
  get pending(): number[] {
    return [...this.#timers].filter(({ isOwn }) => !isOwn).map(({ at }) => at - this.time);
  }

  /** Runs `work` with this clock in place of the runtime's. */
  async run(work: () => Promise<void>): Promise<void> {
    const restore = this.#install();
    try {
      await work();
    } finally {
      restore();
    }
  }

  #install(): () => void {
    const { setTimeout, clearTimeout, setInterval, clearInterval } = globalThis;
    const { setImmediate, clearImmediate } = globalThis as Immediates;
    const [now, date] = [performance.now, Date.now];
    const addImmediate = (task: () => void): Immediate => {
      const added = { task };
      this.#immediates.add(added);
      return added;
    };
    const add = (timer: Timer): Timer => {
      this.#timers.add(timer);
      return timer;
    };
    const clear = (timer: unknown): void => {
      const isOurs = [this.#timers, this.#immediates, this.#due].some((set) => (set as Set<unknown>).delete(timer));
      if (!isOurs) clearTimeout(timer as number);
    };
    Object.assign(globalThis, {
      setTimeout: (task: () => void, ms = 0) =>
        ms < 1 ? addImmediate(task) : add({ at: this.time + Math.ceil(ms), task }),
      setInterval: (task: () => void, ms: number) => add({ at: this.time + ms, every: ms, task }),
      clearTimeout: clear,
      clearInterval: clear,
      ...(realImmediate ? { setImmediate: addImmediate, clearImmediate: clear } : {}),
    });
    // Whole milliseconds, so that sums are exact.
    const start = [Math.ceil(now.call(performance)), date()] as const;
    performance.now = () => start[0] + this.time;
    Date.now = () => start[1] + this.time;
    return () => {
      Object.assign(globalThis, { setTimeout, clearTimeout, setInterval, clearInterval });
      if (realImmediate) Object.assign(globalThis, { setImmediate, clearImmediate });
      performance.now = now;
      Date.now = date;
    };
  }

  /** Runs a task of the test itself at a time of this clock. */
  at(time: number, task: () => void): void {
    this.#timers.add({ at: time, isOwn: true, task });
  }

  /** Runs a number of turns of the event loop, in which no time passes. */
  async turns(count = 3): Promise<void> {
    for (let turn = 0; turn < count; turn++) {
      await this.#drain();
      this.#due = this.#immediates;
      this.#immediates = new Set();
      for (const immediate of this.#due) {
        this.#due.delete(immediate);
        immediate.task();
        await this.#drain();
      }
      this.#onTurn();
    }
  }

  /** Runs turns until nothing is left to do at this time. */
  async settle(): Promise<void> {
    do await this.turns(1);
    while (this.#immediates.size > 0);
  }

  /** Lets milliseconds pass, with a number of turns after each timer. */
  async advance(ms: number, turns = 3): Promise<void> {
    await this.#advance(ms, () => this.turns(turns));
  }

  /** Lets milliseconds pass, and settles after each timer. */
  async advanceAndSettle(ms: number): Promise<void> {
    await this.#advance(ms, () => this.settle());
  }

  async #advance(ms: number, afterTimer: () => Promise<void>): Promise<void> {
    const end = this.time + ms;
    await afterTimer();
    for (let next = this.#next(); next && next.at <= end; next = this.#next()) {
      this.time = Math.max(this.time, next.at);
      if (next.every === undefined) this.#timers.delete(next);
      else next.at += next.every;
      next.task();
      await afterTimer();
    }
    this.time = end;
  }

  /** Returns the timer that is due first. Of several, that is the one that was set first. */
  #next(): Timer | undefined {
    let first: Timer | undefined;
    for (const timer of this.#timers) if (!first || timer.at < first.at) first = timer;
    return first;
  }

  /**
   * Lets time pass until a promise settles.
   * @throws Error if the promise is not settled after `maxMs` milliseconds.
   */
  async advanceUntil<T>(promise: Promise<T>, maxMs = 60_000): Promise<T> {
    let isSettled = false;
    const onSettled = (): void => {
      isSettled = true;
    };
    promise.then(onSettled, onSettled);
    for (const end = this.time + maxMs; !isSettled && this.time < end; ) await this.advance(50);
    if (!isSettled) throw new Error(`Waiting for a promise: not settled after ${maxMs} ms of the test's clock.`);
    return promise;
  }
}
