// A run as its producer sees it: writes events in order, ends the run once, and learns that somebody asks it to stop.
import { BrokerError } from "../base/errors.ts";
import { after, now } from "../base/runtime.ts";
import { checkKnownKeys } from "../base/validate.ts";
import { formatRunId, type RunAppend, type RunEnd, type RunStatus, type RunStore } from "../engine/run-store.ts";
import { type EventInput, type EventRules, prepareEvent } from "../event/event.ts";
import { byteLength } from "../event/sse-format.ts";
import { type PipeOptions, pipe, type RunSource } from "./pipe.ts";
import { outcomeUnknown, runEnded } from "./run-errors.ts";

/** How a producer may end its run. */
export type RunCloseReason = Exclude<RunEnd, "lost">;

/** Options of `run.write`. */
export interface WriteOptions {
  /** Identifies this event in the run. A second call with the same key writes nothing, and resolves with the id of the first. */
  readonly idempotencyKey?: string;
}

/** A run, for its producer. All methods may be called detached. */
export interface Run {
  readonly id: string;
  /** Aborted when the producer should stop: somebody called `stop`, the run is no longer live, or the broker closes. */
  readonly stopped: AbortSignal;
  /**
   * Appends an event. Events keep the order of the calls, awaited or not. Resolves when the event is stored. While the store cannot be reached it
   * is tried again, for as long as `lease`.
   *
   * @throws `TypeError` for a value that is not an event; `BrokerError` `bad-event-type`, `event-too-large`, `key-reused`, `run-too-large` (the run
   * would have more than `maxRunBytes`), `run-ended` (it has ended, or was lost), `at-capacity`, `closed`, `engine-down` (the event is not stored),
   * `publish-outcome-unknown` (nobody knows whether it is: the store did not answer, and the run is over)
   */
  write(event: EventInput, options?: WriteOptions): Promise<{ readonly id: string }>;
  /**
   * Writes everything that a source yields, without waiting for readers, and closes the run: `ended` at the end of the source, `failed` if it
   * throws, `stopped` if somebody stops the run. Resolves with how the run has ended, and never rejects: an error goes to `onError`, stage `run`.
   *
   * @throws `TypeError` for an argument that is not valid; `BrokerError` `run-exists` if the run has a source
   */
  pipe(source: RunSource, options?: PipeOptions): Promise<RunEnd>;
  /**
   * Ends the run: the last event and the end are stored together. Idempotent: a second call resolves as the first. The default reason is `stopped`
   * if `stop` was called for this run, else `ended`.
   *
   * @throws as `write`; `run-ended` if the run was lost, or another run has its id
   */
  close(reason?: RunCloseReason, last?: EventInput): Promise<{ readonly id: string }>;
  /** Stops this run, as `runs.stop(id)` does: `stopped` aborts. Never stops another run that has its id by now. Resolves with whether it was live. */
  stop(): Promise<boolean>;
}

/** Checked options, and the broker's part. */
export interface RunSettings {
  readonly rules: EventRules;
  readonly lease: number;
  readonly retain: number;
  readonly maxRunBytes: number;
  reportError(error: unknown): void;
}

/** An event, or the end, that is not stored yet. */
interface Pending {
  readonly text: string | undefined;
  readonly end: RunCloseReason | undefined;
  resolve(stored: { readonly id: string }): void;
  reject(error: unknown): void;
}

const CLOSE_REASONS: ReadonlySet<unknown> = new Set<RunCloseReason>(["ended", "failed", "stopped"]);
const WRITE_OPTIONS = new Set(["idempotencyKey"]);
/** Events in one append. */
const MAX_BATCH = 1_000;
/** The pause before a call to the store is tried again, in milliseconds. It doubles each time. */
const MIN_RETRY_MS = 25;
const MAX_RETRY_MS = 1_000;

export class RunProducer implements Run {
  readonly id: string;
  readonly generation: string;
  readonly #store: RunStore;
  readonly #settings: RunSettings;
  readonly #onOver: (producer: RunProducer) => void;
  readonly #abort = new AbortController();
  readonly #stopWatching: () => void;
  /** How this producer has ended the run. */
  end: RunCloseReason | undefined;
  #queue: Pending[] = [];
  /** Events that are stored. */
  #stored = 0;
  /** Bytes of all events, stored or not. */
  #bytes = 0;
  /** Resolves when nothing waits to be stored. */
  #flushing: Promise<void> | undefined;
  /** Whether events or an end may be stored of which the store did not say so. */
  #isUnsure = false;
  #isOver = false;
  /** The reason of everything that is written from now on. */
  #refusal: BrokerError | undefined;
  #closing: Promise<{ readonly id: string }> | undefined;
  #isPiped = false;
  #isStopRequested = false;
  /** Writes by idempotency key, with the text of the event. */
  #keys: Map<string, { readonly text: string; readonly written: Promise<{ readonly id: string }> }> | undefined;

  constructor(
    id: string,
    generation: string,
    store: RunStore,
    settings: RunSettings,
    onOver: (producer: RunProducer) => void,
  ) {
    this.id = id;
    this.generation = generation;
    this.#store = store;
    this.#settings = settings;
    this.#onOver = onOver;
    const watch = store.watch(id, (isStop) => isStop && this.#onStop());
    // Without the watch, the renewal of the lease shows that somebody asks to stop.
    watch.ready?.catch(() => undefined);
    this.#stopWatching = () => watch.stop();
  }

  get stopped(): AbortSignal {
    return this.#abort.signal;
  }

  readonly write = async (event: EventInput, options: WriteOptions = {}): Promise<{ readonly id: string }> => {
    checkKnownKeys("write()", "option", WRITE_OPTIONS, options);
    const { idempotencyKey } = options;
    if (idempotencyKey !== undefined && (typeof idempotencyKey !== "string" || idempotencyKey === ""))
      throw new TypeError("write() refused: idempotencyKey must be a text that is not empty.");
    const text = prepareEvent(event, this.#settings.rules);
    if (idempotencyKey === undefined) return this.#enqueue(text, undefined);
    const known = this.#keys?.get(idempotencyKey);
    if (known && known.text !== text)
      throw new BrokerError("key-reused", "Event refused: its key was used before, for another event.");
    if (known) return known.written;
    const written = this.#enqueue(text, undefined);
    this.#keys ??= new Map();
    this.#keys.set(idempotencyKey, { text, written });
    // An event that was refused may be tried again under its key.
    written.catch(() => this.#keys?.delete(idempotencyKey));
    return written;
  };

  readonly pipe = async (source: RunSource, options: PipeOptions = {}): Promise<RunEnd> => {
    if (this.#isPiped) throw new BrokerError("run-exists", "Source refused: the run has a source already.");
    const piping = pipe(this, source, options, (error) => this.#settings.reportError(error));
    this.#isPiped = true;
    return piping;
  };

  readonly close = (reason?: RunCloseReason, last?: EventInput): Promise<{ readonly id: string }> =>
    (this.#closing ??= this.#close(reason, last).catch((error: unknown) => {
      // It may be closed otherwise: without a last event that was refused, or when the store is there again.
      if (!this.#refusal) this.#closing = undefined;
      throw error;
    }));

  // Only other processes have to ask the store.
  readonly stop = async (): Promise<boolean> => {
    const isLive = !this.#isOver;
    this.#onStopRequested();
    return isLive;
  };

  /** Learns the state of the run from its store. */
  onStatus(status: RunStatus): void {
    if (status === "over") this.#end(runEnded());
    else if (status === "stopping") this.#onStopRequested();
  }

  /** Ends the run as lost, because the broker closes: its readers need not wait for the end of the lease. */
  async release(): Promise<void> {
    if (this.#isOver) return;
    this.#end(new BrokerError("closed", "Event refused: the broker is closing."));
    // The end has to follow just what is stored. Where that is not known, the lease ends the run.
    await this.#flushing;
    if (this.#isUnsure || this.end) return;
    await this.#store.append(this.id, this.generation, { after: this.#stored, texts: [], end: "lost" });
  }

  async #close(reason: RunCloseReason | undefined, last: EventInput | undefined): Promise<{ readonly id: string }> {
    if (reason !== undefined && !CLOSE_REASONS.has(reason))
      throw new TypeError('close() refused: the reason must be "ended", "failed" or "stopped".');
    const text = last === undefined ? undefined : prepareEvent(last, this.#settings.rules);
    return this.#enqueue(text, reason ?? (this.#isStopRequested ? "stopped" : "ended"));
  }

  /** Adds an event, an end, or both, to what is stored next. @throws {@link BrokerError} */
  #enqueue(text: string | undefined, end: RunCloseReason | undefined): Promise<{ readonly id: string }> {
    if (this.#refusal) throw this.#refusal;
    if (this.#queue.at(-1)?.end) throw runEnded();
    if (text !== undefined) this.#count(text);
    this.#flushing ??= Promise.resolve().then(() => this.#flush());
    return new Promise((resolve, reject) => {
      this.#queue.push({ text, end, resolve, reject });
    });
  }

  /** Counts the bytes of an event. @throws {@link BrokerError} `run-too-large` */
  #count(text: string): void {
    const { maxRunBytes } = this.#settings;
    const size = byteLength(text);
    if (this.#bytes + size > maxRunBytes)
      throw new BrokerError(
        "run-too-large",
        `Event refused: the run would have more than ${maxRunBytes} bytes (maxRunBytes). Close the run; its events stay readable.`,
      );
    this.#bytes += size;
  }

  /** Stores what waits, until nothing does. */
  async #flush(): Promise<void> {
    while (this.#queue.length > 0 && !this.#isOver) {
      const batch = this.#queue.splice(0, MAX_BATCH);
      try {
        await this.#append(batch);
      } catch (error) {
        for (const { text, reject } of batch) {
          if (text !== undefined) this.#bytes -= byteLength(text);
          reject(error);
        }
      }
    }
    this.#flushing = undefined;
  }

  async #append(batch: readonly Pending[]): Promise<void> {
    const texts = batch.flatMap(({ text }) => text ?? []);
    const end = batch.at(-1)?.end;
    await this.#commit({ after: this.#stored, texts, end });
    for (const { text, resolve } of batch) {
      if (text !== undefined) this.#stored++;
      resolve({ id: formatRunId(this.generation, this.#stored) });
    }
    if (!end) return;
    this.end = end;
    this.#end(runEnded());
  }

  /**
   * Stores events, an end, or both. Asks again while the outcome is not known, for as long as the lease. A call that was refused for good is not
   * repeated. @throws {@link BrokerError}
   */
  async #commit(append: RunAppend): Promise<void> {
    const start = now();
    let isUnsure = false;
    for (let retryMs = MIN_RETRY_MS; ; retryMs = Math.min(2 * retryMs, MAX_RETRY_MS)) {
      let isLive = true;
      let cause: unknown;
      try {
        isLive = await this.#store.append(this.id, this.generation, append);
        if (isLive) return;
      } catch (error) {
        const { code } = Object(error) as Partial<BrokerError>;
        if (code === "publish-outcome-unknown") isUnsure = true;
        else if (code !== "engine-down" && !isUnsure) throw error;
        cause = error;
      }
      // The run is lost, or about to be.
      if (!isLive || this.#refusal?.code === "closed" || now() - start > this.#settings.lease) {
        const refusal = isLive
          ? new BrokerError("engine-down", "Event refused: the store of the run cannot be reached.", { cause })
          : runEnded();
        this.#end(refusal);
        if (!isUnsure) throw refusal;
        this.#isUnsure = true;
        throw outcomeUnknown(cause);
      }
      await new Promise<void>((resolve) => after(retryMs, resolve));
    }
  }

  #onStop(): void {
    if (!this.#isOver && !this.#isStopRequested) void this.#look();
  }

  async #look(): Promise<void> {
    try {
      const page = await this.#store.read(this.id, this.#stored, 1);
      if (!page || page.generation !== this.generation || page.end === "lost") this.onStatus("over");
      else if (page.isStopping && !page.end) this.onStatus("stopping");
    } catch {
      // The renewal of the lease asks again.
    }
  }

  #onStopRequested(): void {
    if (this.#isOver) return;
    this.#isStopRequested = true;
    this.#abort.abort(new BrokerError("run-ended", "Run stopped: somebody asked it to stop."));
  }

  /** Nothing is written any more: refuses what waits. */
  #end(refusal: BrokerError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#refusal = refusal;
    const waiting = this.#queue;
    this.#queue = [];
    for (const { reject } of waiting) reject(refusal);
    this.#stopWatching();
    this.#keys = undefined;
    this.#onOver(this);
    // Also for a run that was closed: work that goes on would have no effect.
    this.#abort.abort(refusal);
  }
}
