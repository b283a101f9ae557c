import { Channel, type Entry } from "./channel.ts";
import { encode, formatId } from "./event.ts";
import type { Log } from "./log.ts";
import { jitter } from "./random.ts";
import type { Reader, Stretch } from "./reader.ts";
import type { Page } from "./remote.ts";
import { after } from "./runtime.ts";

/** Pages kept for those who are about to read the same. */
const RECENT = 64;
/** Milliseconds until what could not be read is tried again. */
const RETRY = 250;

/** A stretch of channels that this process does not hold, as it was kept elsewhere. */
interface Loaded {
  readonly channels: ReadonlyMap<string, Channel>;
  readonly through: number;
}

/** How pages are read. */
export interface PageSource {
  log(): Log;
  read(keys: readonly string[], after: number): Promise<Page>;
  /** Gives a reader that asked what there is for it. */
  give(reader: Reader, stretch: Stretch): void;
  failed(error: unknown): void;
}

/**
 * What readers are given that are behind what this process holds. Each page is read once for all who want the same at a time; who waits
 * for one costs a place in a map, however long the store is away.
 */
export class Pages {
  readonly #source: PageSource;
  readonly #waiting = new Map<Reader, string>();
  /** Newest last. `undefined` while it is being read. */
  readonly #pages = new Map<string, Loaded | undefined>();
  #cancelRetry: (() => void) | undefined;

  constructor(source: PageSource) {
    this.#source = source;
  }

  has(reader: Reader): boolean {
    return this.#waiting.has(reader);
  }

  /** Gives a reader what comes after its cursor, as soon as it is here: never from inside of this call. */
  want(reader: Reader): void {
    if (this.#waiting.has(reader)) return;
    // Only what is not here: who has the same common channel and an inbox of its own reads the same page.
    const keys = reader.channels.filter(({ dropped }) => dropped > reader.cursor).map(({ key }) => key);
    const name = `${reader.cursor}\n${keys.join("\n")}`;
    this.#waiting.set(reader, name);
    const page = this.#pages.get(name);
    if (page) queueMicrotask(() => this.#give(name, page));
    else if (!this.#pages.has(name)) void this.#load(name, keys, reader.cursor);
  }

  /** It does not want it any more, or not now. */
  forget(reader: Reader): void {
    if (!this.#waiting.delete(reader) || this.#waiting.size > 0) return;
    this.#cancelRetry?.();
    this.#cancelRetry = undefined;
  }

  /** The log has begun anew: nothing that was read is of use. */
  clear(): void {
    this.#pages.clear();
  }

  async #load(name: string, keys: readonly string[], cursor: number): Promise<void> {
    const log = this.#source.log();
    this.#pages.set(name, undefined);
    try {
      const page = await this.#source.read(keys, cursor);
      if (log !== this.#source.log()) return;
      // Nobody would come further, and ask at once for the same.
      if (page.epoch !== log.epoch || Math.min(page.through, log.head) <= cursor)
        throw new Error(`Engine gave a page that ends at ${page.epoch}-${page.through}, of ${log.id(cursor)}.`);
      const loaded = loadedOf(log, keys, page);
      this.#pages.set(name, loaded);
      for (const oldest of this.#pages.keys()) {
        if (this.#pages.size <= RECENT) break;
        this.#pages.delete(oldest);
      }
      this.#give(name, loaded);
    } catch (error) {
      if (log !== this.#source.log()) return;
      this.#pages.delete(name);
      this.#source.failed(error);
      if (this.#waiting.size > 0) this.#cancelRetry ??= after(RETRY + jitter(RETRY), () => this.#retry());
    }
  }

  #retry(): void {
    this.#cancelRetry = undefined;
    const readers = [...this.#waiting].filter(([, name]) => !this.#pages.has(name));
    for (const [reader] of readers) this.#waiting.delete(reader);
    for (const [reader] of readers) this.want(reader);
  }

  #give(name: string, { channels, through }: Loaded): void {
    // What is beyond the head comes from the log, in its turn.
    const limit = Math.min(through, this.#source.log().head);
    for (const [reader, wanted] of [...this.#waiting]) {
      if (wanted !== name || !this.#waiting.delete(reader)) continue;
      const own = reader.channels.map((channel) => channels.get(channel.key) ?? channel);
      // Something is missing meanwhile that was here when this was asked for.
      const isWhole = own.every((channel) => channel.dropped <= reader.cursor || channels.has(channel.key));
      if (isWhole) this.#source.give(reader, { channels: own, limit });
      else this.want(reader);
    }
  }
}

function loadedOf(log: Log, keys: readonly string[], { records, dropped, through }: Page): Loaded {
  const channels = new Map(keys.map((key, index) => [key, new Channel(key, dropped[index] ?? 0)]));
  for (const { seq, keys: all, text } of records) {
    const entry: Entry = { seq, keys: all, at: 0, bytes: encode(formatId(log.id(seq)) + text), keepers: 0 };
    for (const key of all) channels.get(key)?.keep(entry);
  }
  return { channels, through };
}
