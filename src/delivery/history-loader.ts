import { jitter } from "../base/random.ts";
import { after } from "../base/runtime.ts";
import { encode, formatId } from "../event/event.ts";
import type { HistoryRange, LogReader } from "../log/batch.ts";
import { ChannelLog, type Entry } from "../log/channel-log.ts";
import type { Log } from "../log/log.ts";
import type { ReplayPage } from "../shared-log/shared-log.ts";

/** Pages kept for those who are about to read the same. */
const RECENT = 64;
/** Pages that are read at a time: who publishes meanwhile is not to wait for a thousand of them. */
const AT_ONCE = 8;
/** Milliseconds until what could not be read is tried again. */
const RETRY = 250;

/** A stretch of channels that this process does not hold, as it was kept elsewhere. */
interface LoadedPage {
  readonly channels: ReadonlyMap<string, ChannelLog>;
  readonly through: number;
}

/** A page, and who waits for it. */
interface PageRequest {
  readonly name: string;
  readonly keys: readonly string[];
  readonly cursor: number;
  readonly readers: Set<LogReader>;
  loaded: LoadedPage | undefined;
}

/** Who has readers that pages are read for. */
export interface HistoryLoaderHost {
  readonly log: Log;
  /** Gives a reader that asked what there is for it. */
  deliverHistory(reader: LogReader, stretch: HistoryRange): void;
  onError(error: unknown): void;
}

/**
 * What readers are given that are behind what this process holds. Each page is read once for all who want the same at a time; who waits
 * for one costs a place in a map, however long the store is away.
 */
export class HistoryLoader {
  readonly #read: (keys: readonly string[], after: number) => Promise<ReplayPage>;
  readonly #home: HistoryLoaderHost;
  readonly #waiting = new Map<LogReader, PageRequest>();
  /** By what is read and from where; newest last. */
  readonly #pages = new Map<string, PageRequest>();
  /** Those that are to be read when others have been. */
  readonly #queue: PageRequest[] = [];
  #loading = 0;
  #cancelRetry: (() => void) | undefined;

  constructor(read: (keys: readonly string[], after: number) => Promise<ReplayPage>, home: HistoryLoaderHost) {
    this.#read = read;
    this.#home = home;
  }

  has(reader: LogReader): boolean {
    return this.#waiting.has(reader);
  }

  /** Gives a reader what comes after its cursor, as soon as it is here: never from inside of this call. */
  request(reader: LogReader): void {
    if (this.#waiting.has(reader)) return;
    const { cursor } = reader;
    // Only what is not here: who has the same common channel and an inbox of its own reads the same page.
    const keys = reader.channels.filter(({ droppedThrough }) => droppedThrough > cursor).map(({ key }) => key);
    const name = `${cursor}\n${keys.join("\n")}`;
    const known = this.#pages.get(name);
    const wanted = known ?? { name, keys, cursor, readers: new Set(), loaded: undefined };
    this.#waiting.set(reader, wanted);
    wanted.readers.add(reader);
    if (wanted.loaded) queueMicrotask(() => this.#give(wanted));
    if (known) return;
    this.#pages.set(name, wanted);
    this.#load([wanted]);
  }

  /** It does not want it any more, or not now. */
  cancel(reader: LogReader): void {
    const wanted = this.#waiting.get(reader);
    if (!wanted) return;
    this.#waiting.delete(reader);
    wanted.readers.delete(reader);
    if (this.#waiting.size > 0) return;
    this.#cancelRetry?.();
    this.#cancelRetry = undefined;
  }

  /** The log has begun anew: nothing that was read is of use. */
  clear(): void {
    this.#pages.clear();
    this.#queue.length = 0;
  }

  #load(more: readonly PageRequest[]): void {
    this.#queue.push(...more);
    while (this.#loading < AT_ONCE) {
      const wanted = this.#queue.shift();
      if (!wanted) break;
      if (wanted.readers.size > 0) void this.#loadOne(wanted);
      else this.#pages.delete(wanted.name);
    }
  }

  async #loadOne(wanted: PageRequest): Promise<void> {
    const log = this.#home.log;
    const { name, keys, cursor } = wanted;
    this.#loading++;
    try {
      const page = await this.#read(keys, cursor);
      if (log !== this.#home.log) return;
      // Nobody would come further, and ask at once for the same.
      if (page.epoch !== log.epoch || Math.min(page.through, log.head) <= cursor)
        throw new Error(`Engine gave a page that ends at ${page.epoch}-${page.through}, of ${log.id(cursor)}.`);
      wanted.loaded = loadedOf(log, keys, page);
      for (const [oldest, { loaded }] of this.#pages) {
        if (this.#pages.size <= RECENT) break;
        if (loaded) this.#pages.delete(oldest);
      }
      this.#give(wanted);
    } catch (error) {
      if (log !== this.#home.log) return;
      this.#pages.delete(name);
      this.#home.onError(error);
      if (this.#waiting.size > 0) this.#cancelRetry ??= after(RETRY + jitter(RETRY), () => this.#retry(), true);
    } finally {
      this.#loading--;
      this.#load([]);
    }
  }

  /** Asks again for those whose page could not be read. */
  #retry(): void {
    this.#cancelRetry = undefined;
    const readers = [...this.#waiting].filter(([, wanted]) => this.#pages.get(wanted.name) !== wanted);
    for (const [reader] of readers) this.cancel(reader);
    for (const [reader] of readers) this.request(reader);
  }

  #give({ readers, loaded }: PageRequest): void {
    if (!loaded) return;
    const { channels, through } = loaded;
    // What is beyond the head comes from the log, in its turn.
    const limit = Math.min(through, this.#home.log.head);
    for (const reader of [...readers]) {
      if (!readers.has(reader)) continue;
      this.cancel(reader);
      const own = reader.channels.map((channel) => channels.get(channel.key) ?? channel);
      // Something is missing meanwhile that was here when this was asked for.
      const isWhole = own.every((channel) => channel.droppedThrough <= reader.cursor || channels.has(channel.key));
      if (isWhole) this.#home.deliverHistory(reader, { channels: own, limit });
      else this.request(reader);
    }
  }
}

function loadedOf(log: Log, keys: readonly string[], { records, droppedThrough, through }: ReplayPage): LoadedPage {
  const channels = new Map(keys.map((key, index) => [key, new ChannelLog(key, droppedThrough[index] ?? 0)]));
  for (const { seq, keys: all, text } of records) {
    const entry: Entry = { seq, keys: all, at: 0, bytes: encode(formatId(log.id(seq)) + text), retainCount: 0 };
    for (const key of all) channels.get(key)?.retain(entry);
  }
  return { channels, through };
}
