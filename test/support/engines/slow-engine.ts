import type { AppendResult, Engine, EngineSession } from "../../../src/index.ts";

/** What was asked of an engine, and when it answers. */
export interface SlowEngine extends Engine {
  /** Names of the calls, in order. */
  readonly calls: string[];
}

/**
 * An engine that keeps its contract and answers late: `wait` says when. With `"before"` an append happens only then, with
 * `"after"` it happens at once, as a subscription does, and the publisher is told then.
 */
export function slowEngine(
  inner: Engine,
  wait: () => Promise<void>,
  appends: "before" | "after" = "before",
): SlowEngine {
  const calls: string[] = [];
  return {
    calls,
    open(follower): EngineSession {
      calls.push("open");
      const session = inner.open(follower);
      // One after the other: the engine keeps the order of the calls.
      let last: Promise<unknown> = Promise.resolve();
      const append = (keys: readonly string[], text: string, nonce?: string): Promise<AppendResult> => {
        calls.push("append");
        if (appends === "after") {
          const appended = session.append(keys, text, nonce);
          return wait().then(() => appended);
        }
        const appended = last.then(wait).then(() => session.append(keys, text, nonce));
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
