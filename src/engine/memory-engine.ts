import { BrokerError } from "../base/errors.ts";
import { ExpiringMap } from "../base/expiring-map.ts";
import { randomName } from "../base/random.ts";
import { onWorkers } from "../base/runtime.ts";
import { checkNumbers } from "../base/validate.ts";
import { Log, type LogOptions, resolveLogOptions } from "../log/log.ts";
import type { Engine, EngineListener, EngineSession } from "./engine.ts";
import { appendOnce, type SeenEvents } from "./idempotency.ts";

/** Options of {@link memoryEngine}. */
export interface MemoryEngineOptions extends LogOptions {
  /** The `ctx` of the Durable Object that the broker lives in. Required on Workers, unused elsewhere. */
  readonly durableObject?: object;
  /**
   * Milliseconds that the key of an event (`Idempotency-Key`) is remembered; 100,000 are, at the most, and beyond that
   * the oldest of the subject that has the most are forgotten. 0 remembers none.
   * @default 300_000
   */
  readonly idempotencyWindow?: number;
}

/**
 * Keeps the log in the memory of this process. Brokers that are given the same engine behave as one. A restart is a new epoch:
 * clients that come back are told of a gap.
 *
 * @throws {@link BrokerError} `engine-refused` on Workers outside of a Durable Object.
 */
export function memoryEngine({
  durableObject,
  idempotencyWindow = 300_000,
  ...rest
}: MemoryEngineOptions = {}): Engine {
  const bounds = resolveLogOptions("memoryEngine()", rest);
  checkNumbers("memoryEngine()", { idempotencyWindow }, 0);
  if (onWorkers() && !durableObject) {
    throw new BrokerError(
      "engine-refused",
      "memoryEngine() refused: on Workers requests land in many isolates, each with a log of its own, so most clients would miss " +
        "most events. Create the broker inside a Durable Object with memoryEngine({ durableObject: ctx }).",
    );
  }
  let log: Log | undefined;
  const known: SeenEvents = new ExpiringMap();

  return {
    open(follower: EngineListener): EngineSession {
      // Made here and not before: the module scope of Workers has no random numbers.
      const opened = (log ??= new Log(randomName(12), bounds));
      opened.listeners.add(follower);
      return {
        log: opened,
        append: (keys, text, nonce) =>
          appendOnce(opened.epoch, known, idempotencyWindow, keys, text, nonce, () => opened.append(keys, text).seq),
        close: () => void opened.listeners.delete(follower),
      };
    },
  };
}
