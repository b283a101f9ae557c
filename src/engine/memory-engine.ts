// The engine that a broker uses by default: its log is in the memory of this process.
import { BrokerError } from "../base/errors.ts";
import { ExpiringMap } from "../base/expiring-map.ts";
import { randomName } from "../base/random.ts";
import { onWorkers } from "../base/runtime.ts";
import { checkNumbers } from "../base/validate.ts";
import { Log } from "../log/log.ts";
import { type LogOptions, resolveLogOptions } from "../log/log-options.ts";
import { sendEphemeral } from "../log/transient.ts";
import type { Engine, EngineListener, EngineSession } from "./engine.ts";
import { appendOnce, type SeenEvents } from "./idempotency.ts";

/** Options of {@link memoryEngine}. */
export interface MemoryEngineOptions extends LogOptions {
  /** The `ctx` of the Durable Object that the broker lives in. Required on Workers, unused elsewhere. */
  readonly durableObject?: object;
  /**
   * Milliseconds for which an idempotency key is remembered, 0 or more; 0 remembers none. At most 100,000 keys are remembered; beyond that,
   * the subject that has the most loses its oldest one.
   * @default 300_000
   */
  readonly idempotencyWindow?: number;
}

const DEFAULTS = { durableObject: undefined as object | undefined, idempotencyWindow: 300_000 };

/**
 * Creates an engine that keeps the log in the memory of this process. Brokers that share one engine act as one. A restart begins a new epoch:
 * clients that come back receive a gap.
 *
 * @throws {@link BrokerError} `engine-refused` on Workers outside of a Durable Object; `RangeError` or `TypeError` for an invalid option
 */
export function memoryEngine(options: MemoryEngineOptions = {}): Engine {
  const bounds = resolveLogOptions("memoryEngine()", options, DEFAULTS);
  const { durableObject, idempotencyWindow } = bounds;
  checkNumbers("memoryEngine()", { idempotencyWindow }, 0);
  if (onWorkers() && !durableObject) {
    throw new BrokerError(
      "engine-refused",
      "memoryEngine() refused: on Workers requests land in many isolates, each with a log of its own, so most clients would miss " +
        "most events. Create the broker inside a Durable Object with memoryEngine({ durableObject: ctx }).",
    );
  }
  let log: Log | undefined;
  const seen: SeenEvents = new ExpiringMap();

  return {
    open(listener: EngineListener): EngineSession {
      // Created here, because Workers have no random numbers at module scope.
      const opened = (log ??= new Log(randomName(12), bounds));
      opened.listeners.add(listener);
      return {
        log: opened,
        append(keys, text, idempotencyKey, _recipient, subject) {
          const append = (): number => opened.append(keys, text, undefined, subject).seq;
          return appendOnce(opened.epoch, seen, idempotencyWindow, keys, text, idempotencyKey, append);
        },
        sendEphemeral: (keys, text) => sendEphemeral(opened, keys, text),
        close: () => void opened.listeners.delete(listener),
      };
    },
  };
}
