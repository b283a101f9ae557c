import { checkNumbers } from "../check.ts";
import { Deadlines } from "../deadlines.ts";
import type { Appended, Engine, Session } from "../engine.ts";
import { BrokerError } from "../errors.ts";
import { type Follower, Log, type LogOptions, resolveLogOptions } from "../log.ts";
import { randomName } from "../random.ts";
import { onWorkers } from "../runtime.ts";

/** Options of {@link memoryEngine}. */
export interface MemoryEngineOptions extends LogOptions {
  /** The `ctx` of the Durable Object that the broker lives in. Required on Workers, unused elsewhere. */
  readonly durableObject?: object;
  /**
   * Milliseconds that the key of an event (`Idempotency-Key`) is remembered; the last 100,000 are, at the most. 0 remembers none.
   * @default 300_000
   */
  readonly keyWindow?: number;
}

/**
 * Keeps the log in the memory of this process. Brokers that are given the same engine behave as one. A restart is a new epoch:
 * clients that come back are told of a gap.
 *
 * @throws {@link BrokerError} `engine-refused` on Workers outside of a Durable Object.
 */
export function memoryEngine({ durableObject, keyWindow = 300_000, ...rest }: MemoryEngineOptions = {}): Engine {
  const bounds = resolveLogOptions("memoryEngine()", rest);
  checkNumbers("memoryEngine()", { keyWindow }, 0);
  if (onWorkers() && !durableObject) {
    throw new BrokerError(
      "engine-refused",
      "memoryEngine() refused: on Workers requests land in many isolates, each with a log of its own, so most clients would miss " +
        "most events. Create the broker inside a Durable Object with memoryEngine({ durableObject: ctx }).",
    );
  }
  let log: Log | undefined;
  const known = new Deadlines<{ readonly seq: number; readonly print: string }>();

  function append(log: Log, keys: readonly string[], text: string, nonce?: string): Appended {
    if (nonce === undefined) return { seq: log.append(keys, text).seq, repeated: false };
    const print = fingerprint(`${[...keys].sort().join("\n")}\n${text}`);
    const before = known.get(nonce);
    if (before && before.print !== print)
      throw new BrokerError("key-reused", "Event refused: its key was used before, for another event.");
    if (before) return { seq: before.seq, repeated: true };
    const { seq } = log.append(keys, text);
    known.set(nonce, keyWindow, { seq, print });
    return { seq, repeated: false };
  }

  return {
    open(follower: Follower): Session {
      // Made here and not before: the module scope of Workers has no random numbers.
      const opened = (log ??= new Log(randomName(12), bounds));
      opened.followers.add(follower);
      return {
        log: opened,
        append: (keys, text, nonce) => append(opened, keys, text, nonce),
        close: () => void opened.followers.delete(follower),
      };
    },
  };
}

/** Tells two texts apart that are not made to be taken for each other: 64 bits of two multiplicative hashes, and the length. */
function fingerprint(text: string): string {
  let a = 0x811c9dc5;
  let b = 0x9e3779b9;
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    a = Math.imul(a ^ unit, 0x01000193);
    b = Math.imul(b ^ unit, 0x85ebca6b);
    b ^= b >>> 13;
  }
  return `${a} ${b} ${text.length}`;
}
