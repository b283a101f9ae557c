// The log of `MemorySharedLog`.
import type { MaxReplay, ReplayPage, SharedHistoryBounds, StoredEvent } from "../../../src/engine.ts";

/** The events of one channel that are retained. */
interface RetainedChannel {
  last: number;
  droppedThrough: number;
  readonly records: StoredEvent[];
}

/** The log of a store, as simple as possible: for each channel, its newest `retention` events. */
export class MemoryLog {
  readonly epoch: string;
  head = 0;
  readonly #retention: number;
  readonly #channels = new Map<string, RetainedChannel>();

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
      const retained = this.#channels.get(key) ?? { last: 0, droppedThrough: 0, records: [] };
      this.#channels.set(key, retained);
      retained.last = record.seq;
      retained.records.push(record);
      while (retained.records.length > this.#retention)
        retained.droppedThrough = retained.records.shift()?.seq ?? retained.droppedThrough;
    }
    return record;
  }

  /** Loses the newest events, as a store does when a replica that is behind takes over. */
  rollBack(head: number): void {
    this.head = Math.min(this.head, head);
    for (const retained of this.#channels.values()) {
      while ((retained.records.at(-1)?.seq ?? 0) > head) retained.records.pop();
      retained.last = retained.records.at(-1)?.seq ?? Math.min(retained.droppedThrough, head);
    }
  }

  read(keys: readonly string[], after: number, maxEvents: number): ReplayPage {
    const all = this.#merged(keys).filter(({ seq }) => seq > after);
    const records = all.slice(0, maxEvents);
    const through = records.length < all.length ? (records.at(-1)?.seq ?? after) : this.head;
    return {
      epoch: this.epoch,
      records,
      through,
      droppedThrough: keys.map((key) => this.#channels.get(key)?.droppedThrough ?? 0),
    };
  }

  historyBounds(
    keys: readonly string[],
    from: number,
    { events = Infinity, bytes = Infinity }: MaxReplay,
    last?: number,
  ): SharedHistoryBounds {
    let remaining = bytes;
    let floor = 0;
    for (const [index, { seq, text }] of this.#merged(keys, last).reverse().entries()) {
      remaining -= `id: ${this.epoch}-${seq}\n${text}`.length;
      if (index < events && remaining >= 0) continue;
      floor = seq;
      break;
    }
    const channels = keys.map((key) => {
      const { droppedThrough = 0, records = [] } = this.#channels.get(key) ?? {};
      return {
        droppedThrough,
        oldest: records[0]?.seq,
        next: records.find(({ seq }) => seq > from)?.seq,
        ...(last === undefined ? {} : { lastFloor: (records.at(-last)?.seq ?? 1) - 1 }),
      };
    });
    return { epoch: this.epoch, head: this.head, floor, channels };
  }

  /** Returns the retained events of these channels, or the newest `last` of each, in order, each once. */
  #merged(keys: readonly string[], last = Infinity): StoredEvent[] {
    const bySeq = new Map<number, StoredEvent>();
    for (const key of keys)
      for (const record of this.#channels.get(key)?.records.slice(-last) ?? []) bySeq.set(record.seq, record);
    return [...bySeq.values()].sort((a, b) => a.seq - b.seq);
  }
}
