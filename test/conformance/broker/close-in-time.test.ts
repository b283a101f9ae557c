// `close({ spreadOver })` keeps its time, although timers are late.
import { expect, test } from "vitest";
import { turn, withBroker } from "../../support/test-broker.ts";

/** Virtual time that passes when all other work is done. Every timer is late by `lateMs`, as on a busy machine. */
class LateClock {
  time = 0;
  readonly #lateMs: number;
  readonly #timers = new Map<number, { readonly at: number; readonly task: () => void }>();
  #lastTimer = 0;

  constructor(lateMs: number) {
    this.#lateMs = lateMs;
  }

  /** Runs `work` with this clock. After each timer there is a real turn of the event loop, for streams and promises. */
  async run(work: () => Promise<unknown>): Promise<void> {
    const { setTimeout, clearTimeout } = globalThis;
    const [now, date] = [performance.now.bind(performance), Date.now];
    const start = [now(), date()] as const;
    Object.assign(globalThis, {
      setTimeout: (task: () => void, ms = 0) => {
        this.#timers.set(++this.#lastTimer, { at: this.time + ms + this.#lateMs, task });
        return this.#lastTimer;
      },
      clearTimeout: (timer: number) => void this.#timers.delete(timer),
    });
    performance.now = () => start[0] + this.time;
    Date.now = () => start[1] + this.time;
    try {
      let isDone = false;
      const done = work().finally(() => {
        isDone = true;
      });
      for (;;) {
        await new Promise((resolve) => setTimeout(resolve, 0));
        if (isDone) return void (await done);
        const [next] = [...this.#timers].sort(([, a], [, b]) => a.at - b.at);
        if (!next) throw new Error("The work is not done, and no timer is set.");
        const [timer, { at, task }] = next;
        this.#timers.delete(timer);
        this.time = Math.max(this.time, at);
        task();
      }
    } finally {
      Object.assign(globalThis, { setTimeout, clearTimeout });
      performance.now = now;
      Date.now = date;
    }
  }
}

test(
  "close({ spreadOver }): resolves within spreadOver + timeout, although every timer is late",
  withBroker(async (setup) => {
    const broker = setup.broker({ timeout: 100 });
    const clients = [];
    for (let client = 0; client < 100; client++) clients.push(await setup.join(broker));
    const ends = clients.map((client) => client.ended());
    await turn();
    const clock = new LateClock(2);

    await clock.run(() => broker.close({ spreadOver: 1_000 }));

    expect(await Promise.all(ends)).toEqual(clients.map(() => "closed"));
    expect(clock.time).toBeGreaterThan(500);
    expect(clock.time).toBeLessThanOrEqual(1_000 + 100);
  }),
);
