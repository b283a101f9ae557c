// Loads events that this process does not hold from the store, for subscribers that are behind.

import { jitter } from "../base/random.ts";
import { after, now } from "../base/runtime.ts";
import { type LogReader, startIn } from "../log/batch.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import type { Log } from "../log/log.ts";
import type { HistoryHost, HistoryLoader, ReplayPage } from "./engine.ts";
import { channelsOfPage } from "./read-log.ts";

/** Pages of one broker that are read at the same time. A publish must not wait behind a thousand of them. */
const MAX_CONCURRENT = 4;
/** Milliseconds before a failed read is tried again. */
const RETRY_MS = 250;

/** Bytes of all pages together, about. The newest page is kept even if it is larger. */
const MAX_BYTES = 8 * 1024 * 1024;
/** Milliseconds for which a page is kept. Its events are delivered for this long after retention has ended. */
const MAX_AGE_MS = 5_000;
/** The bytes that an event and a channel cost besides the bytes of the event. */
const ENTRY_COST = 256;

type ReadPage = (keys: readonly string[], after: number) => Promise<ReplayPage>;

/** Channels as the store retained them, from one position up to another. */
interface LoadedPage {
  readonly after: number;
  readonly through: number;
  readonly channels: ReadonlyMap<string, ChannelLog>;
  readonly bytes: number;
  readonly loadedAt: number;
}

/** Pages by channel. A page serves any reader whose cursor is inside it. */
class RecentPages {
  /** Oldest first. */
  readonly #pages = new Set<LoadedPage>();
  readonly #byChannel = new Map<string, Set<LoadedPage>>();
  #bytes = 0;

  /** Returns the page that reaches furthest from a cursor in a channel. */
  find(key: string, cursor: number): LoadedPage | undefined {
    const oldest = now() - MAX_AGE_MS;
    let found: LoadedPage | undefined;
    for (const page of this.#byChannel.get(key) ?? [])
      if (page.after <= cursor && page.through > (found?.through ?? cursor) && page.loadedAt >= oldest) found = page;
    return found;
  }

  /** Adds a page that was read for the channels of `keys` after a position. */
  add(log: Log, keys: readonly string[], after: number, read: ReplayPage): void {
    const channels = channelsOfPage(log, keys, read);
    const { records, through } = read;
    let bytes = ENTRY_COST * (keys.length + records.length);
    // Text outside ASCII takes up to three times as much.
    for (const { text } of records) bytes += text.length;
    const page: LoadedPage = { after, through, channels, bytes, loadedAt: now() };
    this.#pages.add(page);
    this.#bytes += bytes;
    for (const key of keys) {
      const pages = this.#byChannel.get(key);
      if (pages) pages.add(page);
      else this.#byChannel.set(key, new Set([page]));
    }
    for (const oldest of this.#pages) {
      if (oldest === page || (this.#bytes <= MAX_BYTES && oldest.loadedAt >= page.loadedAt - MAX_AGE_MS)) break;
      this.#remove(oldest);
    }
  }

  clear(): void {
    this.#pages.clear();
    this.#byChannel.clear();
    this.#bytes = 0;
  }

  #remove(page: LoadedPage): void {
    this.#pages.delete(page);
    this.#bytes -= page.bytes;
    for (const key of page.channels.keys()) {
      const pages = this.#byChannel.get(key);
      pages?.delete(page);
      if (pages?.size === 0) this.#byChannel.delete(key);
    }
  }
}

/** A page that is being read, and the subscribers that wait for it. */
interface Load {
  readonly keys: ReadonlySet<string>;
  readonly cursor: number;
  readonly subscribers: Set<LogReader>;
}

/** The page or the turn that a subscriber waits for. */
interface Wait {
  /** The page, or `undefined` if it waits for its turn or for a retry. */
  load: Load | undefined;
  /** It has waited for a page that began before its cursor. That page may have ended before it too, so the next one is its own. */
  hasWaited: boolean;
}

/**
 * Loads pages for subscribers that are behind what this process holds. A page is kept for a few seconds, channel by channel, and serves every
 * subscriber whose cursor is inside it, whatever other channels it has. Subscribers that need a page of their own take turns. A waiting
 * subscriber costs a place in a map, however long the store is away.
 */
class PageLoader implements HistoryLoader {
  readonly #read: ReadPage;
  readonly #host: HistoryHost;
  readonly #waiting = new Map<LogReader, Wait>();
  /** Subscribers that wait for one of the concurrent reads to finish, in the order in which they asked. */
  readonly #queue = new Set<LogReader>();
  /** Subscribers whose page could not be read. */
  readonly #failed = new Set<LogReader>();
  readonly #loads = new Set<Load>();
  readonly #pages = new RecentPages();
  #cancelRetry: (() => void) | undefined;

  constructor(read: ReadPage, host: HistoryHost) {
    this.#read = read;
    this.#host = host;
  }

  has(subscriber: LogReader): boolean {
    return this.#waiting.has(subscriber);
  }

  /** Loads what follows a subscriber's cursor. Never delivers from inside this call. */
  request(subscriber: LogReader): void {
    if (this.#waiting.has(subscriber)) return;
    const wait: Wait = { load: undefined, hasWaited: false };
    this.#waiting.set(subscriber, wait);
    queueMicrotask(() => {
      if (this.#waiting.get(subscriber) === wait) this.#serve(subscriber, wait);
    });
  }

  /** The subscriber no longer waits. */
  cancel(subscriber: LogReader): void {
    const wait = this.#waiting.get(subscriber);
    if (!wait) return;
    this.#waiting.delete(subscriber);
    this.#queue.delete(subscriber);
    this.#failed.delete(subscriber);
    wait.load?.subscribers.delete(subscriber);
    if (this.#waiting.size > 0) return;
    this.#cancelRetry?.();
    this.#cancelRetry = undefined;
  }

  /** The log was replaced: loaded pages are of no use. */
  clear(): void {
    this.#pages.clear();
    this.#loads.clear();
  }

  /** Delivers to a subscriber if the recent pages suffice. Otherwise it waits for a page that is being read, for its own, or for its turn. */
  #serve(subscriber: LogReader, wait: Wait): void {
    const { cursor } = subscriber;
    const { head } = this.#host.log;
    const pages = new Map<string, LoadedPage>();
    const missing: string[] = [];
    // Events beyond the head come from the log, in their turn.
    let limit = head;
    for (const { key, droppedThrough } of subscriber.channels) {
      // Only the channels that are not complete here: subscribers with the same common channel and inboxes of their own then share a page.
      const start = startIn(subscriber, key);
      if (droppedThrough <= start) continue;
      // Nothing of the channel is read before its start. What lies before it may be very much.
      if (start > cursor && cursor < head) {
        limit = Math.min(limit, start);
        continue;
      }
      const page = cursor < head ? this.#pages.find(key, cursor) : undefined;
      if (page) pages.set(key, page);
      else missing.push(key);
    }
    if (missing.length === 0) {
      this.#deliver(subscriber, pages, limit);
      return;
    }
    let load = this.#loadFor(missing, cursor, wait);
    if (!load && this.#loads.size < MAX_CONCURRENT) {
      load = { keys: new Set(missing), cursor, subscribers: new Set() };
      void this.#load(load, missing);
    }
    if (!load) {
      this.#queue.add(subscriber);
      return;
    }
    wait.hasWaited = load.cursor < cursor;
    wait.load = load;
    load.subscribers.add(subscriber);
  }

  /** Returns a page that is being read, if it may have what a subscriber needs. */
  #loadFor(missing: readonly string[], cursor: number, { hasWaited }: Wait): Load | undefined {
    for (const load of this.#loads)
      if ((hasWaited ? load.cursor === cursor : load.cursor <= cursor) && missing.some((key) => load.keys.has(key)))
        return load;
    return undefined;
  }

  async #load(load: Load, keys: readonly string[]): Promise<void> {
    const { log } = this.#host;
    const { cursor, subscribers } = load;
    this.#loads.add(load);
    try {
      const page = await this.#read(keys, cursor);
      if (log !== this.#host.log) return;
      // A page without progress would be requested again at once.
      if (page.epoch !== log.epoch || Math.min(page.through, log.head) <= cursor)
        throw new Error(
          `Reading history: the engine returned a page that ends at ${page.epoch}-${page.through} for the cursor ${log.id(cursor)}.`,
        );
      this.#pages.add(log, keys, cursor, page);
      this.#loads.delete(load);
      for (const subscriber of [...subscribers]) this.#serveNext(subscriber);
    } catch (error) {
      if (log !== this.#host.log) return;
      this.#host.onError(error);
      for (const subscriber of subscribers) {
        this.#failed.add(subscriber);
        const wait = this.#waiting.get(subscriber);
        if (wait) wait.load = undefined;
      }
      if (this.#failed.size > 0) this.#cancelRetry ??= after(RETRY_MS + jitter(RETRY_MS), () => this.#retry(), true);
    } finally {
      this.#loads.delete(load);
      for (const subscriber of this.#queue) {
        if (this.#loads.size >= MAX_CONCURRENT) break;
        this.#serveNext(subscriber);
      }
    }
  }

  /** Serves a subscriber that waited for a page, for its turn, or for a retry. */
  #serveNext(subscriber: LogReader): void {
    const wait = this.#waiting.get(subscriber);
    this.#queue.delete(subscriber);
    if (!wait) return;
    wait.load?.subscribers.delete(subscriber);
    wait.load = undefined;
    this.#serve(subscriber, wait);
  }

  /** Requests the pages again that could not be read. */
  #retry(): void {
    this.#cancelRetry = undefined;
    const failed = [...this.#failed];
    this.#failed.clear();
    for (const subscriber of failed) this.#serveNext(subscriber);
  }

  #deliver(subscriber: LogReader, pages: ReadonlyMap<string, LoadedPage>, most: number): void {
    this.cancel(subscriber);
    let limit = most;
    for (const { through } of pages.values()) limit = Math.min(limit, through);
    const channels = subscriber.channels.map(
      (channel): ChannelLog => pages.get(channel.key)?.channels.get(channel.key) ?? channel,
    );
    this.#host.deliverHistory(subscriber, { channels, limit });
  }
}

/**
 * Returns the `loadHistory` of an engine session that has `read`. It is not part of the fan-out, so that a broker on the memory engine does not
 * carry it. A broker has at most 4 reads under way; subscribers that wait for theirs get heartbeats.
 */
export const historyLoader =
  (read: (keys: readonly string[], after: number) => Promise<ReplayPage>) =>
  (host: HistoryHost): HistoryLoader =>
    new PageLoader(read, host);
