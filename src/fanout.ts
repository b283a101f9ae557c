import type { Channel, Entry } from "./channel.ts";
import type { Session } from "./engine.ts";
import { costOf, type Follower, type Log } from "./log.ts";
import { Pace } from "./pace.ts";
import { type Batch, chunkOf, hasHole, type Reader, readBatch } from "./reader.ts";

/** A reader that can be handed what is new. */
export interface Subscriber extends Reader {
  /** The match it belongs to while a flush is being made. */
  match: Match | undefined;
  /** It wants more and has all there was at the last flush. */
  live: boolean;
  /** Takes a batch; `live` and `cursor` are set before. Whether it did. MUST NOT throw. */
  take(batch: Batch): boolean;
  /** There is more for it, but it does not want any now. */
  waits?(): void;
  /** Only of a subscriber that is no client: nothing will be appended any more. */
  finish?(): void;
}

/** The subscribers of one channel. */
interface Topic {
  readonly channel: Channel;
  readonly subscribers: Set<Subscriber>;
  /** How many of them are no clients. */
  listeners: number;
  pending: boolean;
}

/**
 * The channels with news that a subscriber has, found by one step for each of them. Subscribers with the same match are handed
 * the same chunk, whatever other channels each of them has.
 */
export class Match {
  readonly channels: readonly Channel[];
  batch: Batch | undefined;
  #topic: Topic | undefined;
  #match: Match | undefined;
  #others: Map<Topic, Match> | undefined;

  constructor(channels: readonly Channel[]) {
    this.channels = channels;
  }

  and(topic: Topic): Match {
    if (this.#topic === topic && this.#match) return this.#match;
    let match = this.#others?.get(topic);
    if (!match) {
      match = new Match([...this.channels, topic.channel]);
      (this.#others ??= new Map()).set(topic, match);
    }
    this.#topic = topic;
    this.#match = match;
    return match;
  }
}

/** Bytes that a publisher may be ahead of those who read; an eighth of the log where that is less. */
const RUN_AHEAD = 1024 * 1024;
/** Batches kept for those who are about to catch up over the same stretch. */
const RECENT = 16;

/** Hands what is appended to those who read it: once for each turn and match, and from the log to those who come late. */
export class Fanout implements Follower {
  /** All up to here was offered to every subscriber. */
  position = 0;
  /** Subscribers read up to here: `position`, or where it will be after the flush that is going on. */
  #through = 0;
  /** Events handed to clients. */
  handed = 0;
  /** Bytes handed to clients, of events and gaps. */
  bytes = 0;
  /** Those of them that came from the log, to clients that came back or were behind. */
  replayed = 0;
  /** Gaps told to clients. */
  gaps = 0;
  /** Clients that were put at the head because they could not keep up. */
  overruns = 0;
  log!: Log;
  readonly #topics = new Map<string, Topic>();
  readonly #pending: Topic[] = [];
  readonly #recent: Batch[] = [];
  readonly #pace: Pace<Subscriber>;
  readonly #onOverrun: () => void;
  #overran = false;

  /** `window` is as of {@link Pace}. */
  constructor(onOverrun: () => void, window?: number) {
    this.#onOverrun = onOverrun;
    this.#pace = new Pace<Subscriber>(() => this.#flush(), window);
  }

  open(session: Session): void {
    this.log = session.log;
    this.position = this.#through = this.log.head;
  }

  /** The records of these keys, kept until `leave`. */
  join(subscriber: Subscriber, keys: readonly string[]): Channel[] {
    return keys.map((key) => {
      let topic = this.#topics.get(key);
      if (!topic) {
        topic = { channel: this.log.pin(key), subscribers: new Set(), listeners: 0, pending: false };
        this.#topics.set(key, topic);
      }
      topic.subscribers.add(subscriber);
      if (subscriber.finish) topic.listeners++;
      // What was appended while nobody read this channel, behind a flush that is still to come.
      if (topic.channel.last > this.#through) this.#await(topic);
      return topic.channel;
    });
  }

  /** Gives the records back; whether it had any. */
  leave(subscriber: Subscriber): boolean {
    let left = false;
    for (const channel of subscriber.channels) {
      const topic = this.#topics.get(channel.key);
      if (!topic?.subscribers.delete(subscriber)) continue;
      left = true;
      if (subscriber.finish) topic.listeners--;
      if (topic.subscribers.size > 0) continue;
      this.#topics.delete(channel.key);
      this.log.unpin(channel);
    }
    this.#pace.taken(subscriber);
    return left;
  }

  subscribers(key: string): ReadonlySet<Subscriber> {
    return this.#topics.get(key)?.subscribers ?? NOBODY;
  }

  countClients(key: string): number {
    const topic = this.#topics.get(key);
    return topic ? topic.subscribers.size - topic.listeners : 0;
  }

  get channels(): number {
    return this.#topics.size;
  }

  appended(entry: Entry): void {
    for (const key of entry.keys) {
      const topic = this.#topics.get(key);
      if (topic) this.#await(topic);
    }
    // What concerns nobody here needs no flush.
    if (this.#pending.length === 0 && this.position === this.#through) this.position = this.#through = entry.seq;
    const { maxBytes } = this.log;
    this.#pace.appended(
      Math.max(entry.bytes.length / Math.min(RUN_AHEAD, maxBytes / 8), costOf(entry) / (maxBytes / 8)),
    );
  }

  overrun(): void {
    if (this.#overran) return;
    this.#overran = true;
    this.#onOverrun();
  }

  /** Resolves when the publisher may go on: at once, unless it is far ahead of those who read. */
  ready(): Promise<void> | undefined {
    return this.#pace.ready();
  }

  /** Hands on what is pending, lets publishers go and listeners end. Nothing is appended any more. */
  close(): void {
    this.#pace.close();
    const finishing = new Set<Subscriber>();
    for (const { subscribers } of this.#topics.values()) for (const each of subscribers) finishing.add(each);
    for (const subscriber of finishing) subscriber.finish?.();
  }

  #await(topic: Topic): void {
    this.#pace.request();
    if (topic.pending) return;
    topic.pending = true;
    this.#pending.push(topic);
  }

  /** A subscriber wants more: gives it what it has not read, or else makes it live. */
  wants(subscriber: Subscriber): void {
    if (subscriber.cursor < this.#through || this.#overran) {
      const batch = this.#share(readBatch(this.log, subscriber, this.#through));
      if (batch) {
        this.#pace.moved(subscriber);
        if (this.#hand(subscriber, batch) && !subscriber.finish) this.replayed += batch.events;
        return;
      }
    }
    subscriber.live = true;
    subscriber.overrun = 0;
    this.#pace.taken(subscriber);
  }

  #flush(): void {
    const from = this.position;
    const through = this.log.head;
    const nothing = new Match([]);
    const concerned: Subscriber[] = [];
    this.#through = through;
    for (const topic of this.#pending.splice(0)) {
      topic.pending = false;
      for (const subscriber of topic.subscribers) {
        if (!subscriber.match) concerned.push(subscriber);
        subscriber.match = (subscriber.match ?? nothing).and(topic);
      }
    }
    for (const subscriber of concerned) {
      const match = subscriber.match as Match;
      subscriber.match = undefined;
      if (!subscriber.live) {
        subscriber.waits?.();
      } else if (subscriber.cursor > from || (this.#overran && hasHole(match.channels, from))) {
        // It joined after the last flush, or the log was overrun: its own way.
        if (subscriber.cursor < from) subscriber.cursor = from;
        const batch = readBatch(this.log, subscriber, through);
        if (batch) this.#flushTo(subscriber, batch);
      } else {
        match.batch ??= readBatch(
          this.log,
          { channels: match.channels, cursor: from, holes: undefined, overrun: 0 },
          through,
        );
        if (match.batch) this.#flushTo(subscriber, match.batch);
      }
    }
    this.position = through;
    this.#overran = false;
  }

  #flushTo(subscriber: Subscriber, batch: Batch): void {
    this.#pace.handed(subscriber);
    this.#hand(subscriber, batch);
  }

  #hand(subscriber: Subscriber, batch: Batch): boolean {
    subscriber.live = false;
    subscriber.cursor = batch.through;
    if (!subscriber.take(batch)) return false;
    if (!subscriber.finish) {
      this.handed += batch.events;
      this.bytes += chunkOf(batch).length;
      this.gaps += batch.items.length - batch.events;
      if (batch.skips) this.overruns++;
    }
    if (batch.more && !subscriber.live) subscriber.waits?.();
    return true;
  }

  /** The same batch for all who read the same events. */
  #share(batch: Batch | undefined): Batch | undefined {
    if (!batch || batch.items.length < 2 || batch.events < batch.items.length) return batch;
    for (const other of this.#recent) if (sameItems(batch, other)) return other;
    this.#recent.push(batch);
    if (this.#recent.length > RECENT) this.#recent.shift();
    return batch;
  }
}

const NOBODY: ReadonlySet<Subscriber> = new Set();

function sameItems(a: Batch, b: Batch): boolean {
  return (
    a.items.length === b.items.length &&
    a.through === b.through &&
    a.more === b.more &&
    a.items.every((item, index) => item === b.items[index])
  );
}
