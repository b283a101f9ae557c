// An engine whose answers a test delays.
import type { AppendResult, Engine, EngineSession } from "../../../src/engine.ts";

/** An engine that answers late, and records its calls. */
export interface SlowEngine extends Engine {
  /** Names of the calls, in order. */
  readonly calls: string[];
}

/**
 * Creates an engine that keeps the contract and answers when `wait` resolves. With `"before"`, appends and subscriptions take effect only then.
 * With `"after"`, they take effect at once.
 */
export function slowEngine(
  inner: Engine,
  wait: () => Promise<void>,
  appends: "before" | "after" = "before",
): SlowEngine {
  const calls: string[] = [];
  return {
    calls,
    open(listener): EngineSession {
      calls.push("open");
      const session = inner.open(listener);
      // One by one, because an engine keeps the order of the calls.
      let last: Promise<unknown> = Promise.resolve();
      const append = (keys: readonly string[], text: string, idempotencyKey?: string): Promise<AppendResult> => {
        calls.push("append");
        if (appends === "after") {
          const appended = session.append(keys, text, idempotencyKey);
          return wait().then(() => appended);
        }
        const appended = last.then(wait).then(() => session.append(keys, text, idempotencyKey));
        last = appended.catch(() => undefined);
        return appended;
      };
      return {
        log: session.log,
        append,
        async subscribe(keys) {
          calls.push("subscribe");
          if (appends === "before") await wait();
          await session.subscribe?.(keys);
        },
        unsubscribe(keys) {
          calls.push("unsubscribe");
          session.unsubscribe?.(keys);
        },
        close() {
          calls.push("close");
          session.close();
        },
      };
    },
  };
}
