import type { Session } from "../engine/engine.ts";
import { type Batch, chunkOf, hasHole, hasNews, makeGap, type Reader, readBatch, type Stretch } from "../log/batch.ts";
import type { Channel, Entry } from "../log/channel-log.ts";
import { costOf, type Follower, type Log } from "../log/log.ts";
import type { Order } from "../shared-log/shared-log.ts";
import { Match, type Topic } from "./fanout-group.ts";
import { Pace, type Rhythm } from "./flush-scheduler.ts";
import type { PageHome, Pages } from "./history-loader.ts";
import type { Member } from "./stream-connection.ts";

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
  /** It became live without having asked just now: what it waited for came from elsewhere. */
  caughtUp?(): void;
  /** What was appended before, and it has not, it will never have. */
  cutOff?(): void;
  /** Only of a subscriber that is no client: nothing will be appended any more. */
  finish?(): void;
}

/** Who hears of what comes from the engine, beside events. */
export interface FanoutHome {
  /** An event was appended, and has not been handed to anybody. */
  appended(entry: Entry): void;
  /** Publishing overran the log. */
  overran(): void;
  ordered(order: Order): void;
  failed(error: unknown): void;
}

/** Bytes that a publisher may be ahead of those who read; an eighth of the log where that is less. */
const RUN_AHEAD = 1024 * 1024;
/** Batches kept for those who are about to catch up over the same stretch. */
const RECENT = 16;

/** Hands what is appended to those who read it: once for each turn and match, and from the log to those who come late. */
export class Fanout implements Follower, PageHome {
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
  /** Those who wait for the engine before they can read anything. */
  readonly parked: Set<Subscriber> = new Set();
  readonly #topics = new Map<string, Topic>();
  readonly #pending: Topic[] = [];
  readonly #recent: Batch[] = [];
  readonly #pace: Pace<Subscriber>;
  readonly #home: FanoutHome;
  /** Something was dropped, or is not here, that was not handed on yet. */
  #holed = false;
  /** Where the log need not hold everything that is kept. */
  #pages: Pages | undefined;

  constructor(home: FanoutHome, rhythm?: Rhythm) {
    this.#home = home;
    this.#pace = new Pace<Subscriber>(() => this.#flush(), rhythm);
  }

  open(session: Session): void {
    this.log = session.log;
    this.position = this.#through = this.log.head;
    this.#pages = session.pages?.(this);
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
      if (topic.channel.dropped > this.position) this.#holed = true;
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
    this.#pages?.forget(subscriber);
    return left;
  }

  /** Whether it wants more, and waits for what is kept elsewhere. */
  isFetching(subscriber: Subscriber): boolean {
    return this.#pages?.has(subscriber) ?? false;
  }

  /** Who waits for what is kept elsewhere is handed something else first, and will want more after that. Whether it did wait. */
  interrupt(subscriber: Subscriber): boolean {
    const waited = this.isFetching(subscriber);
    this.#pages?.forget(subscriber);
    return waited;
  }

  /** The clients of these channels, each once. */
  clientsOf(keys: readonly string[]): Set<Member> {
    const clients = new Set<Member>();
    for (const key of keys) {
      for (const subscriber of this.#topics.get(key)?.subscribers ?? NOBODY)
        if (!subscriber.finish) clients.add(subscriber as Member);
    }
    return clients;
  }

  countClients(keys: readonly string[]): number {
    const [key, ...others] = keys;
    if (key === undefined || others.length > 0) return this.clientsOf(keys).size;
    const topic = this.#topics.get(key);
    return topic ? topic.subscribers.size - topic.listeners : 0;
  }

  get channels(): number {
    return this.#topics.size;
  }

  appended(entry: Entry): void {
    this.#home.appended(entry);
    for (const key of entry.keys) {
      const topic = this.#topics.get(key);
      if (topic) this.#await(topic);
    }
    this.advanced(entry.seq);
    const { maxBytes } = this.log;
    this.#pace.appended(
      Math.max(entry.bytes.length / Math.min(RUN_AHEAD, maxBytes / 8), costOf(entry) / (maxBytes / 8)),
    );
  }

  /** What concerns nobody here needs no flush. */
  advanced(head: number = this.log.head): void {
    if (this.#pending.length === 0 && this.position === this.#through) this.position = this.#through = head;
  }

  overrun(): void {
    if (this.#holed) return;
    this.#holed = true;
    // What is kept elsewhere is not lost.
    if (!this.#pages) this.#home.overran();
  }

  began(log: Log): void {
    this.log = log;
    this.position = this.#through = log.head;
    this.#pending.length = this.#recent.length = 0;
    this.#pages?.clear();
    const subscribers = new Set<Subscriber>();
    for (const [key, topic] of this.#topics) {
      topic.channel = log.pin(key);
      topic.pending = false;
      for (const subscriber of topic.subscribers) subscribers.add(subscriber);
    }
    for (const subscriber of subscribers) {
      subscriber.channels = subscriber.channels.map(({ key }) => (this.#topics.get(key) as Topic).channel);
      this.cutOff(subscriber);
    }
  }

  /** A subscriber's cursor is of another log than this one, which it reads from its beginning. */
  cutOff(subscriber: Subscriber): void {
    const keys = subscriber.channels.map(({ key }) => key);
    subscriber.cursor = subscriber.overrun = 0;
    subscriber.holes = undefined;
    subscriber.cutOff?.();
    this.#owe(subscriber, [makeGap(this.log, { channels: keys, after: undefined, through: 0, seq: 0 })]);
  }

  missed(key: string, after: number, through: number): void {
    this.#holed = true;
    for (const subscriber of this.#topics.get(key)?.subscribers ?? NOBODY) {
      const { cursor } = subscriber;
      const gap = { channels: [key], after, through: Math.min(through, cursor), seq: cursor };
      // What is after its cursor it is given yet, in order.
      this.#owe(subscriber, gap.through > after ? [...(subscriber.owed ?? []), makeGap(this.log, gap)] : undefined);
    }
  }

  /** A subscriber that was told all there was has something to hear of again. */
  #owe(subscriber: Subscriber, gaps: Subscriber["owed"]): void {
    if (gaps) subscriber.owed = gaps;
    if (!subscriber.live && !this.isFetching(subscriber)) {
      subscriber.waits?.();
      return;
    }
    subscriber.live = false;
    this.#pages?.forget(subscriber);
    this.#wantsAgain(subscriber);
  }

  ordered(order: Order): void {
    this.#home.ordered(order);
  }

  failed(error: unknown): void {
    this.#home.failed(error);
  }

  /** Resolves when the publisher may go on: at once, unless it is far ahead of those who read. */
  ready(): Promise<void> | undefined {
    return this.#pace.ready();
  }

  /** Hands on what is pending, lets publishers go and listeners end. Nothing is appended any more. */
  close(): void {
    this.#pace.close();
    const finishing = new Set(this.parked);
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
    const { cursor, owed, channels } = subscriber;
    if (owed) {
      subscriber.owed = undefined;
      this.#replay(subscriber, { items: owed, events: 0, through: cursor, more: false });
      return;
    }
    if (this.#pages && hasHole(channels, cursor)) {
      this.#pace.taken(subscriber);
      this.#pages.want(subscriber);
      return;
    }
    if (cursor < this.#through || this.#holed) {
      const batch = this.#share(readBatch(this.log, subscriber, this.#through));
      if (batch) {
        this.#replay(subscriber, batch);
        return;
      }
    }
    subscriber.live = true;
    subscriber.overrun = 0;
    this.#pace.taken(subscriber);
  }

  #replay(subscriber: Subscriber, batch: Batch): void {
    this.#pace.moved(subscriber);
    if (this.#hand(subscriber, batch) && !subscriber.finish) this.replayed += batch.events;
  }

  /** It wanted more before, and still does. */
  #wantsAgain(subscriber: Subscriber): void {
    this.wants(subscriber);
    if (subscriber.live) subscriber.caughtUp?.();
  }

  /** Gives one that waited for it what was kept elsewhere. */
  giveStretch(subscriber: Subscriber, stretch: Stretch): void {
    const batch = this.#share(readBatch(this.log, subscriber, this.#through, stretch));
    if (batch) {
      this.#replay(subscriber, batch);
    } else {
      subscriber.cursor = Math.max(subscriber.cursor, stretch.limit);
      this.#wantsAgain(subscriber);
    }
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
        // Who joined after it was appended has nothing to wait for.
        if (hasNews(match.channels, subscriber.cursor) && !this.isFetching(subscriber)) subscriber.waits?.();
      } else if (subscriber.cursor > from || (this.#holed && hasHole(match.channels, from))) {
        // It joined after the last flush, or the log does not hold everything: its own way.
        if (subscriber.cursor < from) subscriber.cursor = from;
        if (this.#pages && hasHole(subscriber.channels, subscriber.cursor)) {
          subscriber.live = false;
          this.#pages.want(subscriber);
          continue;
        }
        const batch = this.#share(readBatch(this.log, subscriber, through));
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
    this.#holed = false;
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
    // What comes after a stretch need not concern it.
    if (batch.more && !subscriber.live && hasNews(subscriber.channels, subscriber.cursor)) subscriber.waits?.();
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
