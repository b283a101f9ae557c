// An engine that a test can break.
import { BrokerError, type Engine, type EngineSession, type ErrorCode } from "../../../src/engine.ts";
import { type Decision, INTERNAL_TEXT } from "./hooks.ts";

/** Faults of an engine. `inner` is an error that no engine should have. */
export interface Faults {
  append?: ErrorCode | "inner" | undefined;
  /** `waits` lasts until the test lets it go on. */
  subscribe?: ErrorCode | "inner" | "waits" | undefined;
  /** How many calls of `subscribe` wait. */
  subscribing: number;
}

const failure = (code: ErrorCode | "inner"): Error =>
  code === "inner"
    ? new Error(INTERNAL_TEXT)
    : new BrokerError(code, "The engine cannot do that now.", { cause: new Error(INTERNAL_TEXT) });

/** Wraps an engine as if it were on another machine, which is away when the test says so. */
export function breakableEngine(inner: Engine, faults: Faults, decision: Decision): Engine {
  return {
    open(listener): EngineSession {
      const session = inner.open(listener);
      return {
        log: session.log,
        get state() {
          return faults.append ? "down" : "up";
        },
        async append(keys, text, idempotencyKey) {
          // `publish-outcome-unknown`: the event is appended, and the answer is lost.
          if (faults.append && faults.append !== "publish-outcome-unknown") throw failure(faults.append);
          const appended = await session.append(keys, text, idempotencyKey);
          if (faults.append) throw failure(faults.append);
          return appended;
        },
        async subscribe() {
          if (faults.subscribe && faults.subscribe !== "waits") throw failure(faults.subscribe);
          if (!faults.subscribe) return;
          faults.subscribing++;
          await decision.isMade;
          faults.subscribing--;
        },
        unsubscribe: () => undefined,
        close: () => session.close(),
      };
    },
  };
}
