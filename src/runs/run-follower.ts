// Follows a run from its store: reads what is there, waits for more, and says how the run has ended.
import type { BrokerError } from "../base/errors.ts";
import { after, keepAlive, now } from "../base/runtime.ts";
import type { RunEnd, RunPage, RunStore, RunWatch } from "../engine/run-store.ts";
import { runGone, runLost } from "./run-errors.ts";

/** Receives a run. */
export interface FollowerListener {
  /** The next events, in their wire form, that follow those before. The follower then waits until `requestNext` is called. */
  onEvents(bytes: Uint8Array<ArrayBuffer>): void;
  /** Everything was received, and the run has ended. */
  onEnd(end: RunEnd): void;
  /** The run cannot be followed any more. */
  onFailure(error: BrokerError): void;
}

/** The size of a page, in bytes. */
const PAGE_BYTES = 64 * 1024;
/** The size of the first page, which is read together with the state of the run. It is small, so that the first byte is soon there. */
export const FIRST_PAGE_BYTES = 1_024;

/** The place in a run where a follower begins. */
export interface FollowedRun {
  readonly id: string;
  readonly generation: string;
  /** Number of the event before. */
  readonly after: number;
  /** A page after this event that was read before. */
  readonly first?: RunPage | undefined;
}
/** The pause before a store that failed is asked again, in milliseconds. */
const RETRY_MS = 250;
/** Milliseconds after the end of a lease at which the store is asked: its clock may differ. */
const LEASE_MARGIN_MS = 20;

/** A store whose readers of one turn share their reads. */
export class SharedReads {
  readonly #store: RunStore;
  readonly #reads = new Map<string, Promise<RunPage | undefined>>();

  constructor(store: RunStore) {
    this.#store = store;
  }

  read(id: string, after: number): Promise<RunPage | undefined> | RunPage | undefined {
    const known = this.#reads.size > 0 ? this.#reads.get(`${after} ${id}`) : undefined;
    if (known !== undefined) return known;
    const page = this.#store.read(id, after, PAGE_BYTES);
    if (!(page instanceof Promise)) return page;
    const key = `${after} ${id}`;
    this.#reads.set(key, page);
    // A read that began earlier may miss what has changed since.
    queueMicrotask(() => this.#reads.delete(key));
    return page;
  }
}

export class RunFollower {
  readonly #id: string;
  readonly #generation: string;
  readonly #reads: SharedReads;
  readonly #listener: FollowerListener;
  readonly #watch: RunWatch;
  #cursor: number;
  #first: RunPage | undefined;
  #wantsNext = false;
  #isReading = false;
  /** Whether the run has changed since the last read began. */
  #hasChanged = true;
  #isOver = false;
  #cancelTimer: (() => void) | undefined;
  /** The time at which the timer fires, as `now()` counts; `Infinity` if none runs. */
  #timerAt = Infinity;

  constructor(
    { id, generation, after: cursor, first }: FollowedRun,
    { store, reads }: { readonly store: RunStore; readonly reads: SharedReads },
    listener: FollowerListener,
  ) {
    this.#id = id;
    this.#generation = generation;
    this.#cursor = cursor;
    this.#first = first;
    this.#reads = reads;
    this.#listener = listener;
    this.#watch = store.watch(id, () => this.#onChange());
    // Until it is ready, and if it failed, the store is asked again after a while.
    this.#watch.ready?.then(
      () => this.#onChange(),
      () => this.#readAfter(RETRY_MS),
    );
  }

  /** Asks for what follows. */
  requestNext(): void {
    this.#wantsNext = true;
    this.#read();
  }

  stop(): void {
    this.#isOver = true;
    this.#wantsNext = false;
    this.#watch.stop();
    this.#cancelTimer?.();
  }

  #onChange(): void {
    this.#hasChanged = true;
    this.#read();
  }

  /** Asks the store again after a while. A timer that is due before that is kept: when it fires, the store says how long to wait. */
  #readAfter(ms: number): void {
    const at = now() + ms;
    if (this.#timerAt <= at) return;
    this.#timerAt = at;
    this.#cancelTimer?.();
    this.#cancelTimer = after(ms, () => this.#onTimer(), true);
  }

  #onTimer(): void {
    this.#timerAt = Infinity;
    this.#onChange();
  }

  #read(): void {
    if (!this.#wantsNext || this.#isReading || !this.#hasChanged || this.#isOver) return;
    const first = this.#first;
    if (first) {
      // The run may have changed since: it is read again after this.
      this.#first = undefined;
      this.#take(first);
      return;
    }
    this.#hasChanged = false;
    // Also before a page that comes at once: the read itself may end the run, which calls `onChange`.
    this.#isReading = true;
    let page: Promise<RunPage | undefined> | RunPage | undefined;
    try {
      page = this.#reads.read(this.#id, this.#cursor);
    } catch (error) {
      page = Promise.reject(error);
    }
    if (!(page instanceof Promise)) {
      this.#isReading = false;
      this.#take(page);
      return;
    }
    page.then(
      (result) => {
        this.#isReading = false;
        this.#take(result);
      },
      () => {
        this.#isReading = false;
        this.#readAfter(RETRY_MS);
      },
    );
  }

  #take(page: RunPage | undefined): void {
    if (this.#isOver) return;
    if (page?.generation !== this.#generation) {
      this.stop();
      this.#listener.onFailure(runGone());
    } else if (page.bytes.length > 0) {
      this.#cursor = page.through;
      this.#wantsNext = false;
      if (page.end || page.through < page.events) this.#hasChanged = true;
      else this.#readAfterLease(page);
      this.#listener.onEvents(page.bytes);
    } else if (page.end) {
      this.stop();
      this.#listener.onEnd(page.end);
    } else if (this.#hasChanged) {
      this.#read();
    } else {
      this.#readAfterLease(page);
    }
  }

  /** Nobody may be left to report the end of a lease. */
  #readAfterLease({ leaseMs }: RunPage): void {
    this.#readAfter(leaseMs > 0 ? leaseMs + LEASE_MARGIN_MS : RETRY_MS);
  }
}

/** Iterates over the pages of a run. Throws as `onFailure`, and for a run that was lost. `ends` receives a function that ends the iterator. */
export async function* followPages(
  follow: (listener: FollowerListener) => RunFollower,
  signal: AbortSignal | undefined,
  ends: Set<(error: BrokerError) => void>,
): AsyncGenerator<Uint8Array<ArrayBuffer>, undefined> {
  let settle: ((step: Step) => void) | undefined;
  let failure: Step | undefined;
  const fail = (error: unknown): void => {
    failure = { error };
    settle?.(failure);
  };
  const follower = follow({
    onEvents: (bytes) => settle?.({ bytes }),
    onEnd: (end) => settle?.(end === "lost" ? { error: runLost() } : {}),
    onFailure: fail,
  });
  const onAbort = (): void => fail(signal?.reason);
  if (signal?.aborted) onAbort();
  signal?.addEventListener("abort", onAbort);
  ends.add(fail);
  try {
    for (;;) {
      const { bytes, error } =
        failure ??
        (await keepAlive(
          new Promise<Step>((resolve) => {
            settle = resolve;
            follower.requestNext();
          }),
        ));
      if (error !== undefined) throw error;
      if (!bytes) return undefined;
      yield bytes;
    }
  } finally {
    follower.stop();
    signal?.removeEventListener("abort", onAbort);
    ends.delete(fail);
  }
}

/** The next page, an error, or none of both at the end of the run. */
interface Step {
  readonly bytes?: Uint8Array<ArrayBuffer>;
  readonly error?: unknown;
}
