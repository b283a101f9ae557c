// Counts how often the runtime encodes text, joins bytes and enqueues chunks.
import { vi } from "vitest";

/** The cost of some work, as calls of the runtime's own functions. */
export interface Cost {
  /** One entry for each call that encoded text. */
  readonly encoded: readonly Encoded[];
  /** Chunks that were joined from several parts, whether or not a stream received them. */
  readonly joined: ReadonlySet<Uint8Array>;
  /** One entry for each call that enqueued a chunk. */
  readonly enqueued: readonly Uint8Array[];
}

interface Encoded {
  readonly text: string;
  /** The result. Unknown for text that was written into an existing array. */
  readonly bytes?: Uint8Array;
}

/** A cost in numbers. */
export interface Counts {
  readonly encodes: number;
  /** The number of chunks that were joined from several parts. */
  readonly joins: number;
  /** The number of different chunks that streams received. */
  readonly chunks: number;
  readonly enqueues: number;
}

export const countsOf = ({ encoded, joined, enqueued }: Cost): Counts => ({
  encodes: encoded.length,
  joins: joined.size,
  chunks: new Set(enqueued).size,
  enqueues: enqueued.length,
});

/** The prototype of all typed arrays. */
interface Arrays {
  set(from: ArrayLike<number>, offset?: number): void;
}
const arrays: Arrays = Object.getPrototypeOf(Uint8Array.prototype);

/** Whether bytes may be a part of an event. Every part of an event ends with LF; bytes of the test runner do not. */
const endsLine = (bytes: unknown): boolean => bytes instanceof Uint8Array && bytes.at(-1) === 10;

/**
 * Runs `work` and returns its cost. During that the runtime's own encoder, arrays and streams are wrapped, which Node, Bun, Deno and workerd
 * all allow. Bytes that are created in another way are not counted, so tests expect exact numbers instead of upper limits.
 */
export async function measureCost(work: () => Promise<unknown>): Promise<Cost> {
  const encode = vi.spyOn(TextEncoder.prototype, "encode");
  const encodeInto = vi.spyOn(TextEncoder.prototype, "encodeInto");
  const set = vi.spyOn(arrays, "set");
  const enqueue = vi.spyOn(ReadableStreamDefaultController.prototype, "enqueue");
  try {
    await work();
    const encoded = encode.mock.calls.map(([text = ""], index) => ({
      text,
      bytes: encode.mock.results[index]?.value as Uint8Array,
    }));
    const written = encodeInto.mock.calls.map(([text]) => ({ text }));
    const filled = set.mock.contexts.filter((_, index) => endsLine(set.mock.calls[index]?.[0]));
    return {
      encoded: [...encoded, ...written].filter(({ text }) => text.endsWith("\n")),
      joined: new Set(filled as unknown as Uint8Array[]),
      enqueued: enqueue.mock.calls.map(([chunk]) => chunk as unknown as Uint8Array),
    };
  } finally {
    for (const spy of [encode, encodeInto, set, enqueue]) spy.mockRestore();
  }
}

/** Calls `onAccess` whenever a field of an object is read or written. */
export function watchFields(object: object, onAccess: () => void): void {
  for (const [name, descriptor] of Object.entries(Object.getOwnPropertyDescriptors(object))) {
    let { value } = descriptor;
    Object.defineProperty(object, name, {
      get() {
        onAccess();
        return value;
      },
      set(newValue) {
        onAccess();
        value = newValue;
      },
    });
  }
}

/** Returns a function that counts the promises that `work` creates before it returns. On a runtime without async hooks the count is 0. */
export async function createPromiseCounter(): Promise<(work: () => unknown) => number> {
  // A variable, so that no bundler tries to resolve it.
  const name = "node:async_hooks";
  const { createHook } = (await import(/* @vite-ignore */ name)) as typeof import("node:async_hooks");
  return (work) => {
    let count = 0;
    const hook = createHook({
      init(_id, type) {
        if (type === "PROMISE") count++;
      },
    }).enable();
    work();
    hook.disable();
    return count;
  };
}
