import { runtime } from "./runtime.ts";

interface Timer {
  at: number;
  /** Of one that comes again and again. */
  readonly every?: number;
  /** It is the test's own. */
  readonly isOwn?: boolean;
  readonly task: () => void;
}

/** A task that waits for the next turn. */
interface Soon {
  readonly task: () => void;
}

/** So many microtasks follow each other at the most, where there is no better way to know that none is left. */
const LONGEST_CHAIN = 200;

interface Immediates {
  setImmediate?: (task: () => void) => unknown;
  clearImmediate?: (task: unknown) => void;
}
const { setImmediate: immediate } = globalThis as Immediates;
const realTimeout = globalThis.setTimeout;

/** A turn of the event loop. */
const realTurn = (): Promise<void> =>
  new Promise((resolve) => {
    if (immediate) immediate.call(globalThis, resolve);
    else realTimeout.call(globalThis, resolve, 0);
  });

/** Lets everything happen that needs no turn of the event loop, which takes a millisecond on workerd: too long for thousands of them. */
async function quickTurn(): Promise<void> {
  for (let count = 0; count < LONGEST_CHAIN; count++) await undefined;
}

/** Time that passes when a test says so, and turns of the event loop that do. */
export class Clock {
  time = 0;
  readonly #timers = new Set<Timer>();
  #soon = new Set<Soon>();
  /** Those of them whose turn it is. */
  #due = new Set<Soon>();
  readonly #onTurn: () => void;
  readonly #drain: () => Promise<void>;

  /** `onTurn` is called in each turn that passes here. What `isQuick` needs nothing of the runtime's own, such as the body of a plain response. */
  constructor(onTurn: () => void = () => undefined, isQuick = false) {
    this.#onTurn = onTurn;
    this.#drain = isQuick && runtime === "workerd" ? quickTurn : realTurn;
  }

  /** Milliseconds until each timer, those that nobody took back. */
  get pending(): number[] {
    return [...this.#timers].filter(({ isOwn }) => !isOwn).map(({ at }) => at - this.time);
  }

  /** Does something by this clock. */
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
    const soon = (task: () => void): Soon => {
      const waiting = { task };
      this.#soon.add(waiting);
      return waiting;
    };
    const add = (timer: Timer): Timer => {
      this.#timers.add(timer);
      return timer;
    };
    const clear = (timer: unknown): void => {
      const isOurs = [this.#timers, this.#soon, this.#due].some((set) => (set as Set<unknown>).delete(timer));
      if (!isOurs) clearTimeout(timer as number);
    };
    Object.assign(globalThis, {
      setTimeout: (task: () => void, ms = 0) => (ms < 1 ? soon(task) : add({ at: this.time + Math.ceil(ms), task })),
      setInterval: (task: () => void, ms: number) => add({ at: this.time + ms, every: ms, task }),
      clearTimeout: clear,
      clearInterval: clear,
      ...(immediate ? { setImmediate: soon, clearImmediate: clear } : {}),
    });
    // Whole milliseconds, so that sums of them are exact.
    const began = [Math.ceil(now.call(performance)), date()] as const;
    performance.now = () => began[0] + this.time;
    Date.now = () => began[1] + this.time;
    return () => {
      Object.assign(globalThis, { setTimeout, clearTimeout, setInterval, clearInterval });
      if (immediate) Object.assign(globalThis, { setImmediate, clearImmediate });
      performance.now = now;
      Date.now = date;
    };
  }

  /** Does something at a time, for the test itself. */
  at(time: number, task: () => void): void {
    this.#timers.add({ at: time, isOwn: true, task });
  }

  /** Some turns of the event loop, in which no time passes. */
  async turns(count = 3): Promise<void> {
    for (let turn = 0; turn < count; turn++) {
      await this.#drain();
      this.#due = this.#soon;
      this.#soon = new Set();
      for (const waiting of this.#due) {
        this.#due.delete(waiting);
        waiting.task();
        await this.#drain();
      }
      this.#onTurn();
    }
  }

  /** Turns until nothing is left to do at this time. */
  async settle(): Promise<void> {
    do await this.turns(1);
    while (this.#soon.size > 0);
  }

  /** Milliseconds pass, with some turns after each timer. */
  async pass(ms: number, turns = 3): Promise<void> {
    await this.#pass(ms, () => this.turns(turns));
  }

  /** Milliseconds pass, each when nothing is left to do in the one before it. */
  async wait(ms: number): Promise<void> {
    await this.#pass(ms, () => this.settle());
  }

  async #pass(ms: number, rest: () => Promise<void>): Promise<void> {
    const end = this.time + ms;
    await rest();
    for (let next = this.#next(); next && next.at <= end; next = this.#next()) {
      this.time = Math.max(this.time, next.at);
      if (next.every === undefined) this.#timers.delete(next);
      else next.at += next.every;
      next.task();
      await rest();
    }
    this.time = end;
  }

  /** The timer that is due first; of several, the one that was set first. */
  #next(): Timer | undefined {
    let first: Timer | undefined;
    for (const timer of this.#timers) if (!first || timer.at < first.at) first = timer;
    return first;
  }

  /** What a promise resolves with, while time passes. */
  async until<T>(promise: Promise<T>, most = 60_000): Promise<T> {
    let isDone = false;
    const done = (): void => {
      isDone = true;
    };
    promise.then(done, done);
    for (const end = this.time + most; !isDone && this.time < end; ) await this.pass(50);
    if (!isDone) throw new Error(`waiting: not done after ${most} ms`);
    return promise;
  }
}
