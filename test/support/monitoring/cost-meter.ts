import { vi } from "vitest";

/** What some work cost, as counted from outside. */
export interface Cost {
  /** What was encoded, one for each call. */
  readonly encoded: readonly Encoded[];
  /** Chunks that were put together from several parts, whether or not anybody was given them. */
  readonly joined: ReadonlySet<Uint8Array>;
  /** What streams were given, one for each call. */
  readonly enqueued: readonly Uint8Array[];
}

interface Encoded {
  readonly text: string;
  /** What it became; where it was written into something that was there, that is not known. */
  readonly bytes?: Uint8Array;
}

/** The figures of a cost. */
export interface Counts {
  readonly encodes: number;
  /** Chunks that were put together from several parts. */
  readonly joins: number;
  /** Different chunks that streams were given. */
  readonly chunks: number;
  readonly enqueues: number;
}

export const countsOf = ({ encoded, joined, enqueued }: Cost): Counts => ({
  encodes: encoded.length,
  joins: joined.size,
  chunks: new Set(enqueued).size,
  enqueues: enqueued.length,
});

/** `set` of all typed arrays. */
interface Arrays {
  set(from: ArrayLike<number>, offset?: number): void;
}
const arrays: Arrays = Object.getPrototypeOf(Uint8Array.prototype);

/** Whatever is a part of an event ends with a line; what the runner does meanwhile does not. */
const endsLine = (bytes: unknown): boolean => bytes instanceof Uint8Array && bytes.at(-1) === 10;

/**
 * Does something, and counts what it cost. The runtime's own encoder, arrays and streams are wrapped meanwhile, which Node, Bun, Deno
 * and workerd all allow. Bytes that were made in another way are missing from the count, so tests expect exact numbers, not the most.
 */
export async function meter(work: () => Promise<unknown>): Promise<Cost> {
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

/** Calls `look` whenever a field of an object is read or written. */
export function watchFields(object: object, look: () => void): void {
  for (const [name, descriptor] of Object.entries(Object.getOwnPropertyDescriptors(object))) {
    let { value } = descriptor;
    Object.defineProperty(object, name, {
      get() {
        look();
        return value;
      },
      set(given) {
        look();
        value = given;
      },
    });
  }
}

/** Counts the promises that something makes before it returns; where the runtime does not tell, none. */
export async function promiseCounter(): Promise<(work: () => unknown) => number> {
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
