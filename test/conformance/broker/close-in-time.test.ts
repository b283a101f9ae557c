import { expect, test } from "vitest";
import { scene, turn } from "../../support/test-broker.ts";

/** Time that passes when nothing else is left to do, and in which every timer is late, as on a machine that has work to do. */
class LateClock {
  time = 0;
  readonly #late: number;
  readonly #timers = new Map<number, { readonly at: number; readonly task: () => void }>();
  #last = 0;

  constructor(late: number) {
    this.#late = late;
  }

  /** Does something by this clock, with a real turn after each timer, so that streams and promises get theirs. */
  async run(work: () => Promise<unknown>): Promise<void> {
    const { setTimeout, clearTimeout } = globalThis;
    const [now, date] = [performance.now.bind(performance), Date.now];
    const began = [now(), date()] as const;
    Object.assign(globalThis, {
      setTimeout: (task: () => void, ms = 0) => {
        this.#timers.set(++this.#last, { at: this.time + ms + this.#late, task });
        return this.#last;
      },
      clearTimeout: (timer: number) => void this.#timers.delete(timer),
    });
    performance.now = () => began[0] + this.time;
    Date.now = () => began[1] + this.time;
    try {
      let isDone = false;
      const done = work().finally(() => {
        isDone = true;
      });
      for (;;) {
        await new Promise((resolve) => setTimeout(resolve, 0));
        if (isDone) return void (await done);
        const [next] = [...this.#timers].sort(([, a], [, b]) => a.at - b.at);
        if (!next) throw new Error("waiting: the work is not done, and no timer is set");
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
  "close({ spreadOver }): resolves within over + timeout though every timer is a little late",
  scene(async (stage) => {
    const broker = stage.broker({ timeout: 100 });
    const clients = [];
    for (let client = 0; client < 100; client++) clients.push(await stage.join(broker));
    const ends = clients.map((client) => client.ended());
    await turn();
    const clock = new LateClock(2);

    await clock.run(() => broker.close({ spreadOver: 1_000 }));

    expect(await Promise.all(ends)).toEqual(clients.map(() => "closed"));
    expect(clock.time).toBeGreaterThan(500);
    expect(clock.time).toBeLessThanOrEqual(1_000 + 100);
  }),
);
