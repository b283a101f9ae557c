import { after } from "../base/runtime.ts";
import type { EngineSession } from "../engine/engine.ts";
import { COMMON, publicName } from "../event/channel-key.ts";
import { parseEvent } from "../event/event.ts";
import type { Position } from "../event/position.ts";
import { type Batch, type Item, isGap, type LogReader } from "../log/batch.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import type { Log } from "../log/log.ts";
import type { HistoryBounds, ResumePoint } from "../log/resume.ts";
import type { Fanout, Subscriber } from "./fanout.ts";
import type { FanoutGroup } from "./fanout-group.ts";

/** An event, as it was published, with its position. */
export interface ListenedEvent {
  readonly type: "event";
  readonly id: string;
  readonly event?: string;
  readonly data: string;
  /** The channels it was published to; none for what is broadcast to all. */
  readonly channels: readonly string[];
}

/** Events that the log does not hold any more, or that it never held. */
export interface ListenedGap {
  readonly type: "gap";
  readonly id: string;
  readonly channels: readonly string[];
  /** Where it begins, exclusive; `null` if that is not known here. */
  readonly after: string | null;
  readonly through: string;
}

export type Listened = ListenedEvent | ListenedGap;

/** What a listener needs of its broker. */
export interface ListenerHost {
  readonly fanout: Fanout;
  readonly session: EngineSession;
  /** What is kept elsewhere for who starts as this listener does. */
  historyBounds(): Promise<HistoryBounds> | undefined;
  resolveResumePoint(channels: readonly ChannelLog[], survey: HistoryBounds | undefined): ResumePoint;
  isClosed(): boolean;
}

/** Milliseconds until an engine that is away is asked again. */
const RETRY = 250;

/**
 * A cursor like any client's, read by `for await`. It is subscribed only while somebody waits for what is next, so one that is
 * left behind costs nothing and holds nothing.
 */
export class Listener implements Subscriber, AsyncIterableIterator<Listened, undefined> {
  channels: readonly ChannelLog[] = [];
  cursor = 0;
  missingRanges: LogReader["missingRanges"];
  overrun = 0;
  pendingGaps: LogReader["pendingGaps"];
  group: FanoutGroup | undefined;
  live = false;

  readonly #home: ListenerHost;
  readonly #keys: readonly string[];
  /** The log that its cursor is of; none before it has one. */
  #log: Log | undefined;
  #joining = false;
  #cancelRetry: (() => void) | undefined;
  #isSubscribed = false;
  #items: Listened[] = [];
  #serving = false;
  #waiting: ((result: IteratorResult<Listened, undefined>) => void)[] = [];
  #ended = false;
  #signal: AbortSignal | undefined;
  readonly #abort = (): void => this.end();

  constructor(home: ListenerHost, keys: readonly string[], signal: AbortSignal | undefined) {
    this.#home = home;
    this.#keys = keys;
    if (home.session.head) this.#start();
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

  /** Ends at once, also for those who wait. */
  end(): void {
    this.#ended = true;
    this.#items = [];
    this.finish();
  }

  finish(): void {
    this.#home.fanout.waitingForEngine.delete(this);
    this.#cancelRetry?.();
    this.#serve();
  }

  onLogReplaced(): void {
    this.#log = this.#home.fanout.log;
  }

  receive(batch: Batch): boolean {
    for (const item of batch.items) this.#items.push(this.#show(item));
    this.#serve();
    return true;
  }

  /** Where the log is at the call is asked at the call: where it is kept elsewhere, what this process has of it may be behind. */
  #start(): void {
    const { session, fanout } = this.#home;
    fanout.waitingForEngine.add(this);
    if (session.head) void this.#startAt(session.head());
  }

  async #startAt(newest: Promise<Position>): Promise<void> {
    const { session, fanout } = this.#home;
    try {
      const { epoch, seq } = await newest;
      await session.subscribe?.(this.#keys);
      try {
        const survey = await this.#home.historyBounds();
        if (this.#ended) return;
        // Where no log was yet, it is at its beginning.
        if ((survey?.epoch || epoch || fanout.log.epoch) !== fanout.log.epoch)
          throw new Error("Listening: the log began anew meanwhile.");
        this.#begin(survey, Math.min(seq, fanout.log.head));
      } finally {
        session.unsubscribe?.(this.#keys);
      }
      fanout.waitingForEngine.delete(this);
      this.#serve();
    } catch (error) {
      this.#tryLater(error, () => this.#start());
    }
  }

  /** The engine refused something. */
  #tryLater(error: unknown, task: () => void): void {
    const { fanout, isClosed } = this.#home;
    fanout.onError(error);
    if (this.#ended || isClosed()) this.finish();
    else this.#cancelRetry = after(RETRY, task, true);
  }

  #begin(survey?: HistoryBounds, newest?: number): void {
    const { fanout, resolveResumePoint } = this.#home;
    this.channels = fanout.subscribe(this, this.#keys);
    const { cursor, missingRanges, gaps = [], isLive } = resolveResumePoint(this.channels, survey);
    fanout.unsubscribe(this);
    this.channels = [];
    this.#log = fanout.log;
    this.cursor = isLive && newest !== undefined ? newest : cursor;
    this.missingRanges = missingRanges;
    this.#items.push(...gaps.map((gap) => this.#show(gap)));
  }

  #serve(): void {
    if (this.#serving) return;
    this.#serving = true;
    while (this.#waiting.length > 0) {
      if (this.#items.length === 0 && !this.#ended && this.#log && this.#join()) this.#home.fanout.requestNext(this);
      const item = this.#items.shift();
      if (!item && !this.#ended && !this.#home.isClosed()) break;
      if (!item) this.#ended = true;
      this.#waiting.shift()?.(item ? { done: false, value: item } : { done: true, value: undefined });
    }
    this.#serving = false;
    if (this.#waiting.length === 0) this.#leave();
    if (this.#ended) this.#signal?.removeEventListener("abort", this.#abort);
  }

  /** Whether it reads its channels now; if not, it will. */
  #join(): boolean {
    const { fanout, session } = this.#home;
    if (this.channels.length > 0) return true;
    if (this.#joining) return false;
    if (!this.#isSubscribed) {
      const subscribed = session.subscribe?.(this.#keys);
      this.#isSubscribed = subscribed === undefined;
      if (subscribed !== undefined) {
        this.#joining = true;
        fanout.waitingForEngine.add(this);
        void subscribed.then(
          () => this.#joined(true),
          (error) => this.#joined(false, error),
        );
        return false;
      }
    }
    this.channels = fanout.subscribe(this, this.#keys);
    // The log began anew while it read nothing.
    if (this.#log && this.#log !== fanout.log) fanout.moveToNewLog(this);
    return true;
  }

  #joined(isSubscribed: boolean, error?: unknown): void {
    this.#joining = false;
    this.#isSubscribed = isSubscribed;
    if (isSubscribed) {
      this.#home.fanout.waitingForEngine.delete(this);
      this.#serve();
    } else {
      this.#tryLater(error, () => this.#serve());
    }
  }

  #leave(): void {
    const { fanout, session } = this.#home;
    this.live = false;
    fanout.unsubscribe(this);
    this.channels = [];
    if (this.#isSubscribed) session.unsubscribe?.(this.#keys);
    this.#isSubscribed = false;
  }

  #show(item: Item): Listened {
    const { log } = this.#home.fanout;
    if (!isGap(item))
      return {
        type: "event",
        ...parseEvent(item.bytes),
        channels: item.keys.filter((key) => key !== COMMON).map(publicName),
      };
    const { after: from, through, seq, channels } = item;
    return {
      type: "gap",
      id: log.id(seq),
      channels: channels.map(publicName),
      after: from === undefined ? null : log.id(from),
      through: log.id(through),
    };
  }
}
