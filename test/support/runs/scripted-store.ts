// A store of runs in memory whose next calls do what a test says, and brokers that keep their runs there.
import type { RunStore } from "../../../src/engine/run-store.ts";
import { type Broker, BrokerError, type Engine } from "../../../src/index.ts";
import { MemoryRuns } from "../../../src/runs/memory-runs.ts";
import type { TestSetup } from "../test-broker.ts";

/** What becomes of a call: its answer is lost before or after it took effect, it is refused, or it waits for a promise. */
export type Script = "done" | "down" | "full" | "unknown-done" | "unknown" | Promise<void>;
type Method = "start" | "append" | "renew" | "read" | "requestStop";

const BYTES = 64 * 1024 * 1024;

export class ScriptedStore {
  readonly inner: MemoryRuns = new MemoryRuns(BYTES);
  /** The fates of the next calls, by method; `always` is that of all others. */
  readonly next: Partial<Record<Method, Script[]>> = {};
  always: Partial<Record<Method, Script>> = {};
  readonly #setup: TestSetup;

  constructor(setup: TestSetup) {
    this.#setup = setup;
  }

  /** Creates a broker that keeps its runs here. */
  broker(onError: (error: unknown) => void = () => undefined): Broker {
    const inner = this.#setup.engine();
    const engine: Engine = {
      ...inner,
      open: (listener) => ({ ...inner.open(listener), openRuns: () => this.#store() }),
    };
    return this.#setup.broker({ engine, onError: ({ error }) => onError(error) });
  }

  #store(): RunStore {
    const { inner } = this;
    return {
      start: (...args) => this.#call("start", () => inner.start(...args)),
      append: (...args) => this.#call("append", () => inner.append(...args)),
      renew: (...args) => this.#call("renew", () => inner.renew(...args)),
      read: (...args) => this.#call("read", async () => inner.read(...args)),
      requestStop: (...args) => this.#call("requestStop", () => inner.requestStop(...args)),
      watch: (...args) => inner.watch(...args),
      close: () => undefined,
    };
  }

  async #call<T>(method: Method, effect: () => Promise<T>): Promise<T> {
    const script = this.next[method]?.shift() ?? this.always[method] ?? "done";
    if (script instanceof Promise) await script;
    if (script === "down") throw new BrokerError("engine-down", "Not done: the store is away.");
    if (script === "full") throw new BrokerError("at-capacity", "Not done: the store is full.");
    const answer = script === "unknown" ? undefined : await effect();
    if (script === "unknown" || script === "unknown-done")
      throw new BrokerError("publish-outcome-unknown", "Done or not: the answer was lost.");
    return answer as T;
  }
}
