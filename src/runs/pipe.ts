// Writes the chunks of a source to a run: text, values, or the frames of an event stream.
import type { BrokerError } from "../base/errors.ts";
import { checkKnownKeys } from "../base/validate.ts";
import { createParser } from "../client/parser.ts";
import type { RunEnd } from "../engine/run-store.ts";
import { type EventInput, isText } from "../event/event.ts";
import { textDecoder } from "../event/sse-format.ts";

/** A source of a run. */
export type RunSource = ReadableStream<unknown> | AsyncIterable<unknown>;

/** Options of `run.pipe`. */
export interface PipeOptions {
  /**
   * How chunks become events. `"text"`: each text or piece of UTF-8 is an event; an object is an event as `write` takes it. `"json"`: each chunk is
   * serialized. `"sse"`: the chunks are an event stream, which is read event by event; comments and `[DONE]` are dropped. @default "text"
   */
  readonly format?: RunFormat | undefined;
  /** Keeps the runtime from ending the work, such as `ctx.waitUntil` of Workers. */
  readonly waitUntil?: ((promise: Promise<unknown>) => void) | undefined;
  /** Stops the run, as `run.stop()`. */
  readonly signal?: AbortSignal | undefined;
}

/** How the chunks of a source become events. */
export type RunFormat = "sse" | "text" | "json";

const OPTIONS = new Set(["format", "waitUntil", "signal"]);
const FORMATS = new Set<unknown>(["sse", "text", "json"]);
/** A character beyond U+FFFF is two code units, and each alone would be replaced by U+FFFD. */
const FIRST_HALF = /[\ud800-\udbff]$/;
/** Text that may wait for the store before the source is read on, in UTF-16 code units. */
const MAX_WAITING = 64 * 1024;

/** The run that a source is written to. */
export interface PipeTarget {
  readonly stopped: AbortSignal;
  /** How the producer has ended the run; `undefined` also if nobody knows whether it has. */
  readonly end: RunEnd | undefined;
  write(event: EventInput): Promise<unknown>;
  close(reason: "ended" | "failed" | "stopped"): Promise<unknown>;
}

/** Checks a source and its options, and returns a function that begins to read it. @throws `TypeError` */
export function checkSource(source: unknown, options: PipeOptions = {}): () => AsyncIterator<unknown> {
  checkKnownKeys("pipe()", "option", OPTIONS, options);
  const { format, waitUntil } = options;
  if (format !== undefined && !FORMATS.has(format))
    throw new TypeError(`pipe() refused: format must be "sse", "text" or "json", not ${String(format)}.`);
  if (waitUntil !== undefined && typeof waitUntil !== "function")
    throw new TypeError("pipe() refused: waitUntil must be a function.");
  const {
    getReader,
    locked,
    [Symbol.asyncIterator]: iterate,
  } = Object(source) as ReadableStream & AsyncIterable<unknown>;
  if (locked === true) throw new TypeError("pipe() refused: the source has a reader already; pass one that has none.");
  if (typeof getReader === "function") return () => chunksOf(source as ReadableStream<unknown>);
  if (typeof iterate === "function") return () => iterate.call(source);
  throw new TypeError("pipe() refused: the source must be a ReadableStream or an AsyncIterable.");
}

/** Returns an iterator of a stream whose `return` ends a read that waits. */
function chunksOf(stream: ReadableStream<unknown>): AsyncIterator<unknown> {
  const reader = stream.getReader();
  return {
    next: async () => (await reader.read()) as IteratorResult<unknown>,
    return: async () => {
      await reader.cancel();
      return { done: true, value: undefined };
    },
  };
}

/** Writes a source to a run, and closes the run. Never rejects. @throws `TypeError` before anything is read */
export function pipe(
  run: PipeTarget,
  source: RunSource,
  options: PipeOptions,
  onError: (error: unknown) => void,
): Promise<RunEnd> {
  const chunks = checkSource(source, options)();
  const { format = "text", waitUntil, signal } = options;
  const piping = new Pipe(run, chunks, format).run(signal).then(undefined, (error: unknown): RunEnd => {
    onError(error);
    // Where the store could not be reached, the lease ends the run.
    return run.end ?? "lost";
  });
  waitUntil?.(piping);
  return piping;
}

const STOPPED: unique symbol = Symbol("stopped");

class Pipe {
  readonly #run: PipeTarget;
  readonly #chunks: AsyncIterator<unknown>;
  readonly #eventsOf: (chunk: unknown) => readonly EventInput[];
  /** Ends the wait for a chunk. */
  #wake: ((stopped: typeof STOPPED) => void) | undefined;
  #waiting = 0;
  #lastWrite: Promise<unknown> = Promise.resolve();
  #failure: { readonly error: unknown } | undefined;

  constructor(run: PipeTarget, chunks: AsyncIterator<unknown>, format: RunFormat) {
    this.#run = run;
    this.#chunks = chunks;
    this.#eventsOf = readerOf(format);
  }

  async run(signal: AbortSignal | undefined): Promise<RunEnd> {
    const { stopped } = this.#run;
    const onStop = (): void => this.#wake?.(STOPPED);
    stopped.addEventListener("abort", onStop);
    signal?.addEventListener("abort", onStop);
    const isStopped = (): boolean => stopped.aborted || signal?.aborted === true;
    try {
      await this.#run.close(await this.#copy(isStopped));
      return this.#run.end ?? "lost";
    } catch (error) {
      // The end of the run itself is no error of the source.
      const { code } = Object(error) as Partial<BrokerError>;
      if (stopped.aborted && (code === "run-ended" || code === "closed")) return this.#run.end ?? "lost";
      await this.#run.close("failed").catch(() => undefined);
      throw error;
    } finally {
      stopped.removeEventListener("abort", onStop);
      signal?.removeEventListener("abort", onStop);
    }
  }

  async #copy(isStopped: () => boolean): Promise<"ended" | "stopped"> {
    try {
      for (;;) {
        const step = isStopped() ? STOPPED : await this.#next();
        if (step === STOPPED) break;
        if (step.done) {
          await this.#lastWrite;
          if (this.#failure) throw this.#failure.error;
          return "ended";
        }
        for (const event of this.#eventsOf(step.value)) this.#write(event);
        if (this.#waiting > MAX_WAITING) await this.#lastWrite;
        if (this.#failure) throw this.#failure.error;
      }
      return "stopped";
    } finally {
      // Not awaited: a generator that waits for something else returns when it has it.
      void (async () => this.#chunks.return?.())().catch(() => undefined);
    }
  }

  #next(): Promise<IteratorResult<unknown> | typeof STOPPED> {
    return new Promise((resolve, reject) => {
      this.#wake = resolve;
      Promise.resolve(this.#chunks.next()).then(resolve, reject);
    });
  }

  #write(event: EventInput): void {
    const size = typeof event === "string" ? event.length : 256;
    this.#waiting += size;
    this.#lastWrite = this.#run.write(event).then(
      () => void (this.#waiting -= size),
      (error: unknown) => {
        this.#failure ??= { error };
      },
    );
  }
}

/** Returns a function that reads the events of a chunk. */
function readerOf(format: RunFormat): (chunk: unknown) => readonly EventInput[] {
  if (format === "json") return (chunk) => [JSON.stringify(chunk)];
  // The parser of event streams needs text without a byte order mark.
  const decoder = format === "sse" ? new TextDecoder() : textDecoder();
  const textOf = (chunk: unknown): string =>
    typeof chunk === "string" ? chunk : decoder.decode(chunk as Uint8Array<ArrayBuffer>, { stream: true });
  if (format === "text") {
    /** The first half of a character, whose other half is in the next chunk. */
    let half = "";
    return (chunk) => {
      if (!isText(chunk)) return [chunk as EventInput];
      const all = half + textOf(chunk);
      const text = FIRST_HALF.test(all) ? all.slice(0, -1) : all;
      half = all.slice(text.length);
      return text === "" ? [] : [text];
    };
  }
  const events: EventInput[] = [];
  const parser = createParser(({ type, data }) => {
    if (data === undefined || data === "[DONE]") return;
    events.push(type === "message" ? data : { event: type, data });
  });
  return (chunk) => {
    if (!isText(chunk)) throw new TypeError(`pipe() refused: a chunk of format "sse" is text, not ${typeof chunk}.`);
    parser.feed(textOf(chunk));
    return events.splice(0);
  };
}
