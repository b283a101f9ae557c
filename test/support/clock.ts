interface Timer {
  at: number;
  /** Of one that comes again and again. */
  readonly every: number | undefined;
  readonly task: () => void;
}

/** Time that passes when a test says so. What is due in less than a millisecond is left to the runtime. */
export class Clock {
  time = 0;
  readonly #timers = new Set<object>();
  readonly #real = globalThis.setTimeout;
  readonly #immediate = (globalThis as { setImmediate?: (task: () => void) => unknown }).setImmediate;
  readonly #onTurn: () => void;
  #restore: (() => void) | undefined;

  /** `onTurn` is called in each turn that passes here. */
  constructor(onTurn: () => void = () => undefined) {
    this.#onTurn = onTurn;
  }

  /** Milliseconds until each timer, those that nobody took back. */
  get pending(): number[] {
    return [...this.#timers].map((timer) => (timer as Timer).at - this.time);
  }

  /** Does something by this clock. */
  async run(work: () => Promise<void>): Promise<void> {
    this.#install();
    try {
      await work();
    } finally {
      this.#restore?.();
    }
  }

  #install(): void {
    const { setTimeout, clearTimeout, setInterval, clearInterval } = globalThis;
    const [now, date] = [performance.now, Date.now];
    const add = (task: () => void, ms: number, every?: number): object => {
      const timer: Timer = { at: this.time + ms, every, task };
      this.#timers.add(timer);
      return timer;
    };
    const clear = (timer: unknown): void => {
      if (!this.#timers.delete(timer as object)) clearTimeout(timer as number);
    };
    Object.assign(globalThis, {
      setTimeout: (task: () => void, ms = 0) => (ms < 1 ? setTimeout(task, ms) : add(task, ms)),
      setInterval: (task: () => void, ms: number) => add(task, ms, ms),
      clearTimeout: clear,
      clearInterval: clear,
    });
    const began = [now.call(performance), date()] as const;
    performance.now = () => began[0] + this.time;
    Date.now = () => began[1] + this.time;
    this.#restore = () => {
      Object.assign(globalThis, { setTimeout, clearTimeout, setInterval, clearInterval });
      performance.now = now;
      Date.now = date;
    };
  }

  /** Some turns of the event loop, in which no time passes. */
  async turns(count = 3): Promise<void> {
    for (let turn = 0; turn < count; turn++) {
      await new Promise<void>((resolve) => {
        if (this.#immediate) this.#immediate.call(globalThis, resolve);
        else this.#real.call(globalThis, resolve, 0);
      });
      this.#onTurn();
    }
  }

  /** Milliseconds pass, with some turns after each timer. */
  async pass(ms: number, turns = 3): Promise<void> {
    const end = this.time + ms;
    await this.turns(turns);
    for (;;) {
      const [next] = ([...this.#timers] as Timer[]).sort((a, b) => a.at - b.at);
      if (!next || next.at > end) break;
      this.time = Math.max(this.time, next.at);
      if (next.every === undefined) this.#timers.delete(next);
      else next.at += next.every;
      next.task();
      await this.turns(turns);
    }
    this.time = end;
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
