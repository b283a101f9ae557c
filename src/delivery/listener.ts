// The async iterator behind `broker.listen()`: a subscriber inside the process.

import { BrokerError } from "../base/errors.ts";
import { after } from "../base/runtime.ts";
import type { Position } from "../event/position.ts";
import type { Batch, LogReader } from "../log/batch.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import { type Listened, toListened } from "../log/listened.ts";
import type { Log } from "../log/log.ts";
import type { HistoryBounds, ResumePoint } from "../log/resume.ts";
import { isTransient } from "../log/transient.ts";
import type { Fanout } from "./fanout.ts";
import type { FanoutGroup } from "./fanout-group.ts";
import type { Subscriber } from "./subscriber.ts";

/** The broker of a listener. */
export interface ListenerHost {
  readonly fanout: Fanout;
  /** Returns the store's history bounds for this listener's start, if the start needs them. */
  historyBounds(): Promise<HistoryBounds> | undefined;
  resolveResumePoint(channels: readonly ChannelLog[], bounds: HistoryBounds | undefined): ResumePoint;
  isClosed(): boolean;
}

/** Milliseconds before a failed request to the engine is tried again. */
const RETRY_MS = 250;

/**
 * A cursor like a connection's, read by `for await`. It is subscribed only while `next()` waits, so a listener that is left behind costs
 * nothing and holds nothing.
 */
export class Listener implements Subscriber, AsyncIterableIterator<Listened, undefined> {
  readonly kind = "listener";
  channels: readonly ChannelLog[] = [];
  cursor = 0;
  missingRanges: LogReader["missingRanges"];
  overrun = 0;
  resumedAfter: LogReader["resumedAfter"];
  pendingGaps: LogReader["pendingGaps"];
  group: FanoutGroup | undefined;
  live = false;

  readonly #host: ListenerHost;
  readonly #keys: readonly string[];
  /** The log that the cursor belongs to; `undefined` before the start is resolved. */
  #log: Log | undefined;
  #isJoining = false;
  #cancelRetry: (() => void) | undefined;
  #isSubscribed = false;
  #items: Listened[] = [];
  #isServing = false;
  #waiting: ((result: IteratorResult<Listened, undefined> | Promise<never>) => void)[] = [];
  #isEnded = false;
  /** Why the listener cannot start, until `next()` has rejected with it. */
  #refusal: BrokerError | undefined;
  #signal: AbortSignal | undefined;
  readonly #abort = (): void => this.end();

  constructor(host: ListenerHost, keys: readonly string[], signal: AbortSignal | undefined) {
    this.#host = host;
    this.#keys = keys;
    if (host.fanout.session.head) this.#start();
    else this.#begin();
    if (signal?.aborted) this.end();
    else signal?.addEventListener("abort", this.#abort);
    this.#signal = signal;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<Listened, undefined>> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.#serve();
    });
  }

  return(): Promise<IteratorResult<Listened, undefined>> {
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  /** Ends at once, also for calls of `next()` that wait. */
  end(): void {
    this.#isEnded = true;
    this.#items = [];
    this.onFanoutClosed();
  }

  onFanoutClosed(): void {
    this.#host.fanout.waitingForEngine.delete(this);
    this.#cancelRetry?.();
    this.#serve();
  }

  onLogReplaced(): void {
    this.#log = this.#host.fanout.log;
  }

  receive(batch: Batch): boolean {
    for (const item of batch.items) if (!isTransient(item)) this.#items.push(toListened(this.#host.fanout.log, item));
    this.#serve();
    return true;
  }

  /** Asks the store for its head at the time of the call, because what this process holds may be behind. */
  #start(): void {
    const { fanout } = this.#host;
    const { session } = fanout;
    fanout.waitingForEngine.add(this);
    if (session.head) void this.#startAt(session.head());
  }

  async #startAt(head: Promise<Position>): Promise<void> {
    const { fanout } = this.#host;
    const { session } = fanout;
    try {
      const { epoch, seq } = await head;
      await session.subscribe?.(this.#keys);
      try {
        const bounds = await this.#host.historyBounds();
        if (this.#isEnded) return;
        // Without a log, the listener starts at the beginning of the first one.
        if ((bounds?.epoch || epoch || fanout.log.epoch) !== fanout.log.epoch)
          throw new Error("listen(): the log was replaced while the listener started; it starts again.");
        this.#begin(bounds, Math.min(seq, fanout.log.head));
      } finally {
        session.unsubscribe?.(this.#keys);
      }
      fanout.waitingForEngine.delete(this);
      this.#serve();
    } catch (error) {
      if (error instanceof BrokerError && error.code === "bad-request") {
        this.#refusal = error;
        this.end();
      } else {
        this.#tryLater(error, () => this.#start());
      }
    }
  }

  /** Reports a failure of the engine, and tries the task again later. */
  #tryLater(error: unknown, task: () => void): void {
    const { fanout, isClosed } = this.#host;
    fanout.onError(error);
    if (this.#isEnded || isClosed()) this.onFanoutClosed();
    else this.#cancelRetry = after(RETRY_MS, task, true);
  }

  #begin(bounds?: HistoryBounds, head?: number): void {
    const { fanout, resolveResumePoint } = this.#host;
    this.channels = fanout.subscribe(this, this.#keys);
    const { cursor, missingRanges, resumedAfter, gaps = [], isLive } = resolveResumePoint(this.channels, bounds);
    fanout.unsubscribe(this);
    this.channels = [];
    this.#log = fanout.log;
    this.cursor = isLive && head !== undefined ? head : cursor;
    this.missingRanges = missingRanges;
    this.resumedAfter = resumedAfter;
    this.#items.push(...gaps.map((gap) => toListened(this.#host.fanout.log, gap)));
  }

  #serve(): void {
    if (this.#isServing) return;
    this.#isServing = true;
    while (this.#waiting.length > 0) {
      if (this.#items.length === 0 && !this.#isEnded && this.#log && this.#join()) this.#host.fanout.requestNext(this);
      const item = this.#items.shift();
      if (!item && !this.#isEnded && !this.#host.isClosed()) break;
      if (!item) this.#isEnded = true;
      const refusal = this.#refusal;
      this.#refusal = undefined;
      this.#waiting.shift()?.(
        item ? { done: false, value: item } : refusal ? Promise.reject(refusal) : { done: true, value: undefined },
      );
    }
    this.#isServing = false;
    if (this.#waiting.length === 0) this.#leave();
    if (this.#isEnded) this.#signal?.removeEventListener("abort", this.#abort);
  }

  /** Subscribes to the channels. Returns whether they can be read now; if not, `#serve` is called later. */
  #join(): boolean {
    const { fanout } = this.#host;
    const { session } = fanout;
    if (this.channels.length > 0) return true;
    if (this.#isJoining) return false;
    if (!this.#isSubscribed) {
      const subscribed = session.subscribe?.(this.#keys);
      this.#isSubscribed = subscribed === undefined;
      if (subscribed !== undefined) {
        this.#isJoining = true;
        fanout.waitingForEngine.add(this);
        void subscribed.then(
          () => this.#joined(true),
          (error) => this.#joined(false, error),
        );
        return false;
      }
    }
    this.channels = fanout.subscribe(this, this.#keys);
    // The log was replaced while nothing was read.
    if (this.#log && this.#log !== fanout.log) fanout.moveToNewLog(this);
    return true;
  }

  #joined(isSubscribed: boolean, error?: unknown): void {
    this.#isJoining = false;
    this.#isSubscribed = isSubscribed;
    if (isSubscribed) {
      this.#host.fanout.waitingForEngine.delete(this);
      this.#serve();
    } else {
      this.#tryLater(error, () => this.#serve());
    }
  }

  #leave(): void {
    const { fanout } = this.#host;
    const { session } = fanout;
    this.live = false;
    // While nothing is read, only notices report lost events.
    if (this.channels.length > 0) this.resumedAfter = this.cursor;
    fanout.unsubscribe(this);
    this.channels = [];
    if (this.#isSubscribed) session.unsubscribe?.(this.#keys);
    this.#isSubscribed = false;
  }
}
