import type { Channel } from "./channel.ts";
import { parseEvent } from "./event.ts";
import type { Fanout, Match, Subscriber } from "./fanout.ts";
import type { Landing } from "./landing.ts";
import { COMMON, publicName } from "./names.ts";
import { type Batch, type Item, isGap, type Reader } from "./reader.ts";

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

/**
 * A cursor like any client's, read by `for await`. It is subscribed only while somebody waits for what is next, so one that is
 * left behind costs nothing and holds nothing.
 */
export class Listener implements Subscriber, AsyncIterableIterator<Listened, undefined> {
  channels: readonly Channel[] = [];
  cursor: number;
  holes: Reader["holes"];
  overrun = 0;
  match: Match | undefined;
  live = false;

  readonly #fanout: Fanout;
  readonly #keys: readonly string[];
  readonly #isClosed: () => boolean;
  #items: Item[] = [];
  #serving = false;
  #waiting: ((result: IteratorResult<Listened, undefined>) => void)[] = [];
  #ended = false;
  #signal: AbortSignal | undefined;
  readonly #abort = (): void => this.end();

  constructor(
    fanout: Fanout,
    keys: readonly string[],
    land: (channels: readonly Channel[]) => Landing,
    isClosed: () => boolean,
    signal: AbortSignal | undefined,
  ) {
    this.#fanout = fanout;
    this.#keys = keys;
    this.#isClosed = isClosed;
    this.#join();
    const { cursor, holes, gaps = [] } = land(this.channels);
    this.#leave();
    this.cursor = cursor;
    this.holes = holes;
    this.#items.push(...gaps);
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
    this.#serve();
  }

  finish(): void {
    this.#serve();
  }

  take(batch: Batch): boolean {
    this.#items.push(...batch.items);
    this.#serve();
    return true;
  }

  #serve(): void {
    if (this.#serving) return;
    this.#serving = true;
    while (this.#waiting.length > 0) {
      if (this.#items.length === 0 && !this.#ended) {
        this.#join();
        this.#fanout.wants(this);
      }
      const item = this.#items.shift();
      if (!item && !this.#ended && !this.#isClosed()) break;
      if (!item) this.#ended = true;
      this.#waiting.shift()?.(item ? { done: false, value: this.#show(item) } : { done: true, value: undefined });
    }
    this.#serving = false;
    if (this.#waiting.length === 0) this.#leave();
    if (this.#ended) this.#signal?.removeEventListener("abort", this.#abort);
  }

  #join(): void {
    if (this.channels.length === 0) this.channels = this.#fanout.join(this, this.#keys);
  }

  #leave(): void {
    this.live = false;
    this.#fanout.leave(this);
    this.channels = [];
  }

  #show(item: Item): Listened {
    const { log } = this.#fanout;
    if (!isGap(item))
      return {
        type: "event",
        ...parseEvent(item.bytes),
        channels: item.keys.filter((key) => key !== COMMON).map(publicName),
      };
    const { after, through, seq, channels } = item;
    return {
      type: "gap",
      id: log.id(seq),
      channels: channels.map(publicName),
      after: after === undefined ? null : log.id(after),
      through: log.id(through),
    };
  }
}
