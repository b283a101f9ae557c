import type { ReplayPage, StoredEvent } from "../../../src/engine/engine.ts";
import type { MaxReplay } from "../../../src/log/resume.ts";
import type { SharedHistoryBounds } from "../../../src/shared-log/shared-log.ts";

/** What is kept of a channel. */
interface Kept {
  last: number;
  dropped: number;
  readonly records: StoredEvent[];
}

/** A log as a store keeps it, said as simply as possible: each channel by itself, so many of its newest events. */
export class MemoryLog {
  readonly epoch: string;
  head = 0;
  readonly #retention: number;
  readonly #channels = new Map<string, Kept>();

  constructor(epoch: string, retention: number) {
    this.epoch = epoch;
    this.#retention = retention;
  }

  lastOf(key: string): number {
    return this.#channels.get(key)?.last ?? 0;
  }

  append(keys: readonly string[], text: string): StoredEvent {
    const record = { seq: ++this.head, keys, text };
    for (const key of keys) {
      const kept = this.#channels.get(key) ?? { last: 0, dropped: 0, records: [] };
      this.#channels.set(key, kept);
      kept.last = record.seq;
      kept.records.push(record);
      while (kept.records.length > this.#retention) kept.dropped = kept.records.shift()?.seq ?? kept.dropped;
    }
    return record;
  }

  /** Loses its newest events, as a store does whose replica takes over. */
  rollBack(head: number): void {
    this.head = Math.min(this.head, head);
    for (const kept of this.#channels.values()) {
      while ((kept.records.at(-1)?.seq ?? 0) > head) kept.records.pop();
      kept.last = kept.records.at(-1)?.seq ?? Math.min(kept.dropped, head);
    }
  }

  read(keys: readonly string[], after: number, most: number): ReplayPage {
    const all = this.#merged(keys).filter(({ seq }) => seq > after);
    const records = all.slice(0, most);
    const through = records.length < all.length ? (records.at(-1)?.seq ?? after) : this.head;
    return {
      epoch: this.epoch,
      records,
      through,
      droppedThrough: keys.map((key) => this.#channels.get(key)?.dropped ?? 0),
    };
  }

  survey(
    keys: readonly string[],
    from: number,
    { events = Infinity, bytes = Infinity }: MaxReplay,
  ): SharedHistoryBounds {
    let room = bytes;
    let floor = 0;
    for (const [index, { seq, text }] of this.#merged(keys).reverse().entries()) {
      room -= `id: ${this.epoch}-${seq}\n${text}`.length;
      if (index < events && room >= 0) continue;
      floor = seq;
      break;
    }
    const channels = keys.map((key) => {
      const { dropped = 0, records = [] } = this.#channels.get(key) ?? {};
      return { droppedThrough: dropped, oldest: records[0]?.seq, next: records.find(({ seq }) => seq > from)?.seq };
    });
    return { epoch: this.epoch, head: this.head, floor, channels };
  }

  /** What is kept of these channels, in order, each once. */
  #merged(keys: readonly string[]): StoredEvent[] {
    const bySeq = new Map<number, StoredEvent>();
    for (const key of keys) for (const record of this.#channels.get(key)?.records ?? []) bySeq.set(record.seq, record);
    return [...bySeq.values()].sort((a, b) => a.seq - b.seq);
  }
}
