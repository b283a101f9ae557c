// Loads events that this process does not hold from the store, for subscribers that are behind.

import { jitter } from "../base/random.ts";
import { after } from "../base/runtime.ts";
import type { HistoryHost, HistoryLoader, ReplayPage } from "../engine/engine.ts";
import { channelsOfPage } from "../engine/read-log.ts";
import type { LogReader } from "../log/batch.ts";
import type { ChannelLog } from "../log/channel-log.ts";

/** Loaded pages kept for subscribers that are about to read the same. */
const RECENT_PAGES = 64;
/** Pages that are read at the same time. A publish must not wait behind a thousand of them. */
const MAX_CONCURRENT = 8;
/** Milliseconds before a failed read is tried again. */
const RETRY_MS = 250;

/** Channels as the store retains them, up to a position. */
interface LoadedPage {
  readonly channels: ReadonlyMap<string, ChannelLog>;
  readonly through: number;
}

/** A page and the subscribers that wait for it. */
interface PageRequest {
  readonly name: string;
  readonly keys: readonly string[];
  readonly cursor: number;
  readonly subscribers: Set<LogReader>;
  loaded: LoadedPage | undefined;
}

/**
 * Loads pages for subscribers that are behind what this process holds. Each page is read once for all subscribers that want the same one.
 * A waiting subscriber costs a place in a map, however long the store is away.
 */
class PageLoader implements HistoryLoader {
  readonly #read: (keys: readonly string[], after: number) => Promise<ReplayPage>;
  readonly #host: HistoryHost;
  readonly #waiting = new Map<LogReader, PageRequest>();
  /** By cursor and channels; newest last. */
  readonly #pages = new Map<string, PageRequest>();
  /** Requests that wait for one of the concurrent reads to finish. */
  readonly #queue: PageRequest[] = [];
  #loading = 0;
  #cancelRetry: (() => void) | undefined;

  constructor(read: (keys: readonly string[], after: number) => Promise<ReplayPage>, host: HistoryHost) {
    this.#read = read;
    this.#host = host;
  }

  has(subscriber: LogReader): boolean {
    return this.#waiting.has(subscriber);
  }

  /** Loads what follows a subscriber's cursor. Never delivers from inside this call. */
  request(subscriber: LogReader): void {
    if (this.#waiting.has(subscriber)) return;
    const { cursor } = subscriber;
    // Only the channels that are not complete here: subscribers with the same common channel and inboxes of their own then share a page.
    const keys = subscriber.channels.filter(({ droppedThrough }) => droppedThrough > cursor).map(({ key }) => key);
    const name = `${cursor}\n${keys.join("\n")}`;
    const known = this.#pages.get(name);
    const request = known ?? { name, keys, cursor, subscribers: new Set(), loaded: undefined };
    this.#waiting.set(subscriber, request);
    request.subscribers.add(subscriber);
    if (request.loaded) queueMicrotask(() => this.#deliver(request));
    if (known) return;
    this.#pages.set(name, request);
    this.#load([request]);
  }

  /** The subscriber no longer waits. */
  cancel(subscriber: LogReader): void {
    const request = this.#waiting.get(subscriber);
    if (!request) return;
    this.#waiting.delete(subscriber);
    request.subscribers.delete(subscriber);
    if (this.#waiting.size > 0) return;
    this.#cancelRetry?.();
    this.#cancelRetry = undefined;
  }

  /** The log was replaced: loaded pages are of no use. */
  clear(): void {
    this.#pages.clear();
    this.#queue.length = 0;
  }

  #load(more: readonly PageRequest[]): void {
    this.#queue.push(...more);
    while (this.#loading < MAX_CONCURRENT) {
      const request = this.#queue.shift();
      if (!request) break;
      if (request.subscribers.size > 0) void this.#loadOne(request);
      else this.#pages.delete(request.name);
    }
  }

  async #loadOne(request: PageRequest): Promise<void> {
    const log = this.#host.log;
    const { name, keys, cursor } = request;
    this.#loading++;
    try {
      const page = await this.#read(keys, cursor);
      if (log !== this.#host.log) return;
      // A page without progress would be requested again at once.
      if (page.epoch !== log.epoch || Math.min(page.through, log.head) <= cursor)
        throw new Error(
          `Reading history: the engine returned a page that ends at ${page.epoch}-${page.through} for the cursor ${log.id(cursor)}.`,
        );
      request.loaded = { channels: channelsOfPage(log, keys, page), through: page.through };
      for (const [oldest, { loaded }] of this.#pages) {
        if (this.#pages.size <= RECENT_PAGES) break;
        if (loaded) this.#pages.delete(oldest);
      }
      this.#deliver(request);
    } catch (error) {
      if (log !== this.#host.log) return;
      this.#pages.delete(name);
      this.#host.onError(error);
      if (this.#waiting.size > 0) this.#cancelRetry ??= after(RETRY_MS + jitter(RETRY_MS), () => this.#retry(), true);
    } finally {
      this.#loading--;
      this.#load([]);
    }
  }

  /** Requests the pages again that could not be read. */
  #retry(): void {
    this.#cancelRetry = undefined;
    const subscribers = [...this.#waiting].filter(([, request]) => this.#pages.get(request.name) !== request);
    for (const [subscriber] of subscribers) this.cancel(subscriber);
    for (const [subscriber] of subscribers) this.request(subscriber);
  }

  #deliver({ subscribers, loaded }: PageRequest): void {
    if (!loaded) return;
    const { channels, through } = loaded;
    // Events beyond the head come from the log, in their turn.
    const limit = Math.min(through, this.#host.log.head);
    for (const subscriber of [...subscribers]) {
      if (!subscribers.has(subscriber)) continue;
      this.cancel(subscriber);
      const own = subscriber.channels.map((channel) => channels.get(channel.key) ?? channel);
      // A channel that was complete when the page was requested may have lost events since.
      const isWhole = own.every((channel) => channel.droppedThrough <= subscriber.cursor || channels.has(channel.key));
      if (isWhole) this.#host.deliverHistory(subscriber, { channels: own, limit });
      else this.request(subscriber);
    }
  }
}

/**
 * Returns the `loadHistory` of an engine session that has `read`. It is not part of the fan-out, so that a broker on the memory engine does not
 * carry it.
 */
export const historyLoader =
  (read: (keys: readonly string[], after: number) => Promise<ReplayPage>) =>
  (host: HistoryHost): HistoryLoader =>
    new PageLoader(read, host);
