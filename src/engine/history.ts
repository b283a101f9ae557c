// `broker.history()`: reads a bounded part of what is retained, in this process or in the store. Nothing is subscribed for it.
import { BrokerError } from "../base/errors.ts";
import { type HistoryRange, type LogItem, type LogReader, readBatch } from "../log/batch.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import { type ListenedEvent, type ListenedGap, toListened } from "../log/listened.ts";
import type { Log } from "../log/log.ts";
import { type ResumePoint, resolveResumePoint, type StartOptions, startSeq } from "../log/resume.ts";
import type { EngineSession } from "./engine.ts";
import { channelsOfPage } from "./read-log.ts";

/** A part of the history of some channels. */
export interface History<Event = ListenedEvent> {
  /** In order, each once. */
  readonly events: readonly Event[];
  /** Events that are missing in this part, because they are no longer retained. */
  readonly gaps: readonly ListenedGap[];
  /**
   * The end of this part. A stream of the same channels with this id as its `Last-Event-ID` continues exactly here, and so does a next call
   * with it as `after`.
   */
  readonly position: string;
  /** Whether more is retained after `position`. */
  readonly more: boolean;
}

/** The events of one part, where the caller sets no limit, and the most that a caller may ask for. */
export const DEFAULT_LIMIT = 100;
export const MAX_LIMIT = 1_000;
/** Bytes after which a part ends, also below its limit. One larger event is returned alone. */
const MAX_PART_BYTES = 1024 * 1024;

/**
 * Reads up to `limit` events of these channels, from a start up to the head at the time of the call. With a limit of 0 it reads nothing, and
 * returns the head. `signal` ends it between two pages of the store.
 *
 * @throws {@link BrokerError} `engine-down`; the reason of `signal`
 */
export async function readHistory(
  session: EngineSession,
  keys: readonly string[],
  start: StartOptions,
  limit: number,
  signal?: AbortSignal,
): Promise<History> {
  signal?.throwIfAborted();
  // Waits until the engine has started, which may replace the log.
  const head = await session.head?.();
  const { log } = session;
  log.checkChannels(keys);
  const part = new Part(log, limit);
  if (head) {
    // A store that has no log yet has nothing to read.
    if (head.epoch) checkEpoch(log, head.epoch);
    if (limit > 0 && head.seq > 0) await readStore(session, keys, part, start, signal);
    return part.end(Math.max(head.seq, part.reader.cursor));
  }
  const channels = keys.map((key) => log.pin(key));
  part.begin(channels, resolveResumePoint(log, channels, start, {}));
  while (part.wantsMore(log.head)) part.read(log.head);
  for (const channel of channels) log.unpin(channel);
  return part.end(log.head);
}

/** Reads the store page by page, up to its head at the time of the call. */
async function readStore(
  session: EngineSession,
  keys: readonly string[],
  part: Part,
  start: StartOptions,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { log } = session;
  const bounds = await session.historyBounds?.(keys, startSeq(log, start), {});
  if (!bounds) return;
  checkEpoch(log, bounds.epoch);
  part.begin([], resolveResumePoint(log, [], start, {}, bounds));
  while (part.wantsMore(bounds.head)) {
    signal?.throwIfAborted();
    await readPage(session, keys, part, bounds.head);
  }
}

/** Reads one page of the store. */
async function readPage(session: EngineSession, keys: readonly string[], part: Part, head: number): Promise<void> {
  const { log } = session;
  const { cursor } = part.reader;
  const page = await (session.read as NonNullable<EngineSession["read"]>)(keys, cursor);
  checkEpoch(log, page.epoch);
  const limit = Math.min(page.through, head);
  if (limit <= cursor)
    throw new Error(
      `Reading history: the engine returned a page that ends at ${page.through} for the cursor ${cursor}.`,
    );
  const channels = [...channelsOfPage(log, keys, page).values()];
  while (part.wantsMore(limit)) part.read(limit, { channels, limit });
}

/** @throws {@link BrokerError} `engine-down` if the store has another log than this process */
function checkEpoch({ epoch }: Log, stored: string): void {
  if (stored !== epoch)
    throw new BrokerError("engine-down", "History not read: the log was replaced while it was read; try again.");
}

/** The part that was read so far. */
class Part {
  reader: LogReader = { channels: [], cursor: 0, missingRanges: undefined, overrun: 0 };
  readonly #log: Log;
  readonly #limit: number;
  readonly #events: ListenedEvent[] = [];
  readonly #gaps: ListenedGap[] = [];
  #bytes = 0;
  /** Whether an event did not fit any more. */
  #isFull = false;

  constructor(log: Log, limit: number) {
    this.#log = log;
    this.#limit = limit;
  }

  begin(channels: readonly ChannelLog[], { cursor, missingRanges, resumedAfter, gaps = [] }: ResumePoint): void {
    this.reader = { channels, cursor, missingRanges, overrun: 0, resumedAfter };
    if (this.#limit > 0) for (const gap of gaps) this.#add(gap);
  }

  wantsMore(head: number): boolean {
    return this.#limit > 0 && !this.#isFull && this.reader.cursor < head;
  }

  /** Reads a batch up to a position, which is beyond the cursor. */
  read(through: number, history?: HistoryRange): void {
    const batch = readBatch(this.#log, this.reader, through, history);
    for (const item of batch?.items ?? []) {
      if (!this.#add(item)) return;
      this.reader.cursor = Math.max(this.reader.cursor, item.seq);
    }
    this.reader.cursor = batch?.through ?? through;
  }

  /** Adds an item. Returns whether it still fitted. */
  #add(item: LogItem): boolean {
    const listened = toListened(this.#log, item);
    if (listened.type === "gap") {
      this.#gaps.push(listened);
      return true;
    }
    const bytes = this.#bytes + item.bytes.length;
    this.#isFull = this.#events.length >= this.#limit || (bytes > MAX_PART_BYTES && this.#events.length > 0);
    if (this.#isFull) return false;
    this.#bytes = bytes;
    this.#events.push(listened);
    return true;
  }

  end(head: number): History {
    const seq = this.#isFull ? this.reader.cursor : head;
    return { events: this.#events, gaps: this.#gaps, position: this.#log.id(seq), more: this.#isFull };
  }
}
