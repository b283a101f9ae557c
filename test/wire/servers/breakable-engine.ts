import { BrokerError, type Engine, type EngineSession, type ErrorCode } from "../../../src/index.ts";
import { type Decision, INNER_TEXT } from "./hooks.ts";

/** What an engine does instead of its work; `inner` is an error that no engine should have. */
export interface Faults {
  append?: ErrorCode | "inner" | undefined;
  /** `waits` until the test says that it may go on. */
  subscribe?: ErrorCode | "inner" | "waits" | undefined;
  /** Subscriptions that wait. */
  subscribing: number;
}

const failure = (code: ErrorCode | "inner"): Error =>
  code === "inner"
    ? new Error(INNER_TEXT)
    : new BrokerError(code, "The engine cannot do that now.", { cause: new Error(INNER_TEXT) });

/** An engine on another machine, as far as a broker can tell, which is away when the test says so. */
export function breakableEngine(inner: Engine, faults: Faults, decision: Decision): Engine {
  return {
    open(follower): EngineSession {
      const session = inner.open(follower);
      return {
        log: session.log,
        get state() {
          return faults.append ? "down" : "up";
        },
        async append(keys, text, nonce) {
          // Unknown is what was done while the reply was lost.
          if (faults.append && faults.append !== "publish-outcome-unknown") throw failure(faults.append);
          const appended = await session.append(keys, text, nonce);
          if (faults.append) throw failure(faults.append);
          return appended;
        },
        async subscribe() {
          if (faults.subscribe && faults.subscribe !== "waits") throw failure(faults.subscribe);
          if (!faults.subscribe) return;
          faults.subscribing++;
          await decision.made;
          faults.subscribing--;
        },
        unsubscribe: () => undefined,
        close: () => session.close(),
      };
    },
  };
}
