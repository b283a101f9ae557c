// Sends appended events to the subscribers of their channels: one chunk per flush, position and set of matched channels.
import type {
  Engine,
  EngineListener,
  EngineSession,
  HistoryHost,
  HistoryLoader,
  PeerCommand,
} from "../engine/engine.ts";
import { type Batch, chunkOf, type HistoryRange, hasMissing, hasNews, isSameBatch, readBatch } from "../log/batch.ts";
import type { ChannelLog, Entry } from "../log/channel-log.ts";
import { type Gap, makeGap } from "../log/gap.ts";
import { entryCost, type Log } from "../log/log.ts";
import { ChannelIndex } from "./channel-index.ts";
import type { Connection } from "./connection.ts";
import { FanoutGroup } from "./fanout-group.ts";
import { FlushScheduler } from "./flush-scheduler.ts";
import { PublisherBackpressure } from "./publisher-backpressure.ts";
import { ReplayQueue } from "./replay-queue.ts";
import type { ChannelSubscribers, Subscriber } from "./subscriber.ts";

/** Receives what the engine reports besides new events. */
export interface FanoutHost {
  /** An event was appended, and no subscriber has received it yet. */
  onAppended(entry: Entry): void;
  /** More was published at once than the log holds. */
  onOverrun(): void;
  onCommand(command: PeerCommand): void;
  onError(error: unknown): void;
}

/** Milliseconds, for a runtime whose clock cannot measure a flush, or connections that answer late. */
export interface FlushTiming {
  /** Between two flushes. */
  readonly window: number;
  /** The longest time that a publisher is held after a flush. */
  readonly hold: number;
}

/** Bytes that a publisher may be ahead of the subscribers; an eighth of the log where that is less. */
const MAX_BYTES_AHEAD = 1024 * 1024;
/** How many positions a subscriber may be behind to be served at once. */
const NEAR_HEAD = 1_024;
/** Batches kept for subscribers that are about to catch up over the same events. */
const RECENT_BATCHES = 16;

/**
 * Connects the engine to the subscribers of one broker. A live subscriber receives new events in the next flush. A subscriber that is
 * behind asks with `requestNext`, and reads the log from its cursor.
 */
export class Fanout implements EngineListener, HistoryHost {
  /** Every event up to here was offered to every subscriber. */
  position: number;
  /** Events sent to connections. */
  sentEvents = 0;
  /** Bytes sent to connections, of events and gaps. */
  sentBytes = 0;
  /** Events of `sentEvents` that a connection read from the log, because it resumed or was behind. */
  replayedEvents = 0;
  /** Gaps sent to connections. */
  sentGaps = 0;
  /** Connections that were moved to the head because they could not keep up. */
  overruns = 0;
  readonly session: EngineSession;
  log: Log;
  /** Listeners that wait for the engine before they can read anything. */
  readonly waitingForEngine: Set<Subscriber> = new Set();
  readonly #host: FanoutHost;
  readonly #channels = new ChannelIndex();
  readonly #pending: ChannelSubscribers[] = [];
  readonly #recent: Batch[] = [];
  readonly #scheduler: FlushScheduler;
  readonly #backpressure: PublisherBackpressure<Subscriber>;
  readonly #replays: ReplayQueue<Subscriber>;
  /** Loads events that this process does not hold. Absent where the log holds everything that is retained. */
  readonly #history: HistoryLoader | undefined;
  /** Subscribers read up to here: `position`, or its value after the flush that is running. */
  #through: number;
  /** Events were dropped, or are not held here, since the last flush. */
  #hasMissing = false;
  /** A notice of lost events was appended since the last flush. Readers that came with a position read it each for itself. */
  #hasNotice = false;

  /** Opens the engine. */
  constructor(engine: Engine, host: FanoutHost, timing?: FlushTiming) {
    this.#host = host;
    this.#scheduler = new FlushScheduler(() => {
      this.#backpressure.beforeFlush();
      this.#flush();
      this.#backpressure.afterFlush();
    }, timing?.window);
    this.#backpressure = new PublisherBackpressure<Subscriber>(() => this.#scheduler.request(), timing?.hold);
    this.#replays = new ReplayQueue<Subscriber>((subscriber) => {
      this.#readNext(subscriber);
      if (subscriber.live) subscriber.onCaughtUp?.();
    });
    // The engine asks for the position while it opens, and retains everything after it.
    this.position = this.#through = 0;
    this.session = engine.open(this);
    this.log = this.session.log;
    this.position = this.#through = this.log.head;
    this.#history = this.session.loadHistory?.(this);
  }

  /** Adds a subscriber to channels. Returns their records, which are kept until `unsubscribe`. */
  subscribe(subscriber: Subscriber, keys: readonly string[]): ChannelLog[] {
    return keys.map((key) => {
      const entry = this.#channels.add(subscriber, key, this.log);
      const { channel } = entry;
      // Events that were appended while nobody read this channel, behind a flush that is still to come.
      if (channel.last > this.#through) this.#markPending(entry);
      if (channel.droppedThrough > this.position) this.#hasMissing = true;
      return channel;
    });
  }

  /** Removes a subscriber from its channels. Returns whether it was in any. */
  unsubscribe(subscriber: Subscriber): boolean {
    const wasListed = this.#channels.remove(subscriber, this.log);
    this.#backpressure.caughtUp(subscriber);
    this.cancelHistory(subscriber);
    return wasListed;
  }

  /** Whether a subscriber wants more, and waits for history: from the store, or for its turn to read the log. */
  isLoadingHistory(subscriber: Subscriber): boolean {
    return this.#replays.has(subscriber) || (this.#history?.has(subscriber) ?? false);
  }

  /** Cancels the wait for history, because the subscriber receives something else first. Returns whether it was waiting. */
  cancelHistory(subscriber: Subscriber): boolean {
    const wasWaiting = this.isLoadingHistory(subscriber);
    this.#replays.delete(subscriber);
    this.#history?.cancel(subscriber);
    return wasWaiting;
  }

  /** The connections of these channels, each once. */
  connectionsOf(keys: readonly string[]): Set<Connection> {
    return this.#channels.connectionsOf(keys);
  }

  countConnections(keys: readonly string[]): number {
    return this.#channels.countConnections(keys);
  }

  /** How many channels and inboxes have subscribers. */
  get channels(): number {
    return this.#channels.size;
  }

  onAppended(entry: Entry): void {
    this.#host.onAppended(entry);
    if (entry.notice) this.#hasNotice = true;
    for (const key of entry.keys) {
      const channel = this.#channels.find(key);
      if (channel) this.#markPending(channel);
    }
    this.onAdvanced(entry.seq);
    const { maxBytes } = this.log;
    this.#backpressure.appended(
      Math.max(entry.bytes.length / Math.min(MAX_BYTES_AHEAD, maxBytes / 8), entryCost(entry) / (maxBytes / 8)),
    );
  }

  /** Events that concern no subscriber need no flush. */
  onAdvanced(head: number = this.log.head): void {
    if (this.#pending.length === 0 && this.position === this.#through) this.position = this.#through = head;
  }

  onOverrun(): void {
    if (this.#hasMissing) return;
    this.#hasMissing = true;
    // Events that the store still retains are not lost.
    if (!this.#history) this.#host.onOverrun();
  }

  onLogReplaced(log: Log): void {
    this.log = log;
    this.position = this.#through = log.head;
    this.#pending.length = this.#recent.length = 0;
    this.#history?.clear();
    for (const subscriber of this.#channels.moveTo(log)) this.moveToNewLog(subscriber);
  }

  /** Moves a subscriber whose cursor is of another log to the beginning of this one. */
  moveToNewLog(subscriber: Subscriber): void {
    const keys = subscriber.channels.map(({ key }) => key);
    subscriber.cursor = subscriber.overrun = 0;
    subscriber.missingRanges = subscriber.resumedAfter = undefined;
    subscriber.onLogReplaced?.();
    this.#resend(subscriber, [makeGap(this.log, { channels: keys, after: undefined, through: 0, seq: 0 })]);
  }

  onMissed(key: string, after: number, through: number): void {
    this.#hasMissing = true;
    for (const subscriber of this.#channels.subscribersOf(key)) {
      const { cursor } = subscriber;
      const gap = { channels: [key], after, through: Math.min(through, cursor), seq: cursor };
      // What lies after its cursor is still sent, in order.
      const isBehindCursor = gap.through > after;
      this.#resend(
        subscriber,
        isBehindCursor ? [...(subscriber.pendingGaps ?? []), makeGap(this.log, gap)] : undefined,
      );
    }
  }

  onCommand(command: PeerCommand): void {
    this.#host.onCommand(command);
  }

  onError(error: unknown): void {
    this.#host.onError(error);
  }

  /** Counts gaps that a connection received in its first chunk. */
  countOpeningGaps(gaps: readonly Gap[] = []): void {
    this.sentGaps += gaps.length;
    for (const { bytes } of gaps) this.sentBytes += bytes.length;
  }

  /** Returns a promise for a publisher to wait for, if it is far ahead of the subscribers. */
  ready(): Promise<void> | undefined {
    return this.#backpressure.ready();
  }

  /** Sends what is pending, lets publishers go on, and ends listeners. Nothing is appended after this. */
  close(): void {
    this.#scheduler.close();
    this.#backpressure.release();
    const subscribers = this.#channels.subscribers();
    for (const subscriber of this.waitingForEngine) subscribers.add(subscriber);
    for (const subscriber of subscribers) subscriber.onFanoutClosed?.();
  }

  /** A subscriber wants more: sends it what it has not read, now or in its turn, or makes it live. */
  requestNext(subscriber: Subscriber): void {
    // Live delivery comes first: a subscriber that has almost caught up does not wait for those that read history.
    const isNear = this.#through - subscriber.cursor <= NEAR_HEAD;
    if (!isNear && !this.#replays.admit(subscriber)) return;
    this.#readNext(subscriber);
  }

  #readNext(subscriber: Subscriber): void {
    const { cursor, pendingGaps, channels } = subscriber;
    if (pendingGaps) {
      subscriber.pendingGaps = undefined;
      this.#sendReplay(subscriber, { items: pendingGaps, events: 0, through: cursor, more: false });
      return;
    }
    if (this.#history && hasMissing(channels, cursor)) {
      this.#backpressure.caughtUp(subscriber);
      this.#history.request(subscriber);
      return;
    }
    if (cursor < this.#through || this.#hasMissing) {
      const batch = this.#share(readBatch(this.log, subscriber, this.#through));
      this.#replays.spend(channels.length);
      if (batch) {
        this.#sendReplay(subscriber, batch);
        return;
      }
    }
    subscriber.live = true;
    subscriber.overrun = 0;
    this.#backpressure.caughtUp(subscriber);
  }

  /** Sends history that was loaded for a subscriber. */
  deliverHistory(subscriber: Subscriber, history: HistoryRange): void {
    const batch = this.#share(readBatch(this.log, subscriber, this.#through, history));
    if (batch) {
      this.#sendReplay(subscriber, batch);
    } else {
      subscriber.cursor = Math.max(subscriber.cursor, history.limit);
      this.#requestNextAgain(subscriber);
    }
  }

  #markPending(entry: ChannelSubscribers): void {
    this.#scheduler.request();
    if (entry.pending) return;
    entry.pending = true;
    this.#pending.push(entry);
  }

  /** Sends gaps, or again what follows the cursor, to a subscriber that counted as complete. */
  #resend(subscriber: Subscriber, gaps: readonly Gap[] | undefined): void {
    if (gaps) subscriber.pendingGaps = gaps;
    if (!subscriber.live && !this.isLoadingHistory(subscriber)) {
      subscriber.onBlocked?.();
      return;
    }
    subscriber.live = false;
    this.cancelHistory(subscriber);
    this.#requestNextAgain(subscriber);
  }

  /** As `requestNext`, for a subscriber that asked earlier and still waits. */
  #requestNextAgain(subscriber: Subscriber): void {
    this.requestNext(subscriber);
    if (subscriber.live) subscriber.onCaughtUp?.();
  }

  #flush(): void {
    const from = this.position;
    const through = this.log.head;
    this.#through = through;
    for (const subscriber of this.#groupPending()) {
      const group = subscriber.group as FanoutGroup;
      subscriber.group = undefined;
      if (!subscriber.live) {
        // A subscriber that joined after these events has nothing to wait for.
        if (hasNews(group.channels, subscriber.cursor) && !this.isLoadingHistory(subscriber)) subscriber.onBlocked?.();
      } else if (subscriber.cursor > from || (this.#hasMissing && hasMissing(group.channels, from))) {
        this.#flushAlone(subscriber, from, through);
      } else if (this.#hasNotice && subscriber.resumedAfter !== undefined) {
        this.#flushAlone(subscriber, from, through);
      } else {
        group.batch ??= readBatch(
          this.log,
          { channels: group.channels, cursor: from, missingRanges: undefined, overrun: 0 },
          through,
        );
        if (group.batch) this.#sendLive(subscriber, group.batch);
      }
    }
    this.position = through;
    this.#hasMissing = this.#hasNotice = false;
  }

  /** Sets the group of each subscriber of a pending channel, and returns those subscribers. */
  #groupPending(): readonly Subscriber[] {
    const root = new FanoutGroup([]);
    const concerned: Subscriber[] = [];
    const pending = this.#pending.splice(0);
    // A single event is the same batch for everybody, whichever of its channels they read.
    const isSingle = this.#through - this.position === 1 && !this.#hasMissing;
    const shared = isSingle ? new FanoutGroup(pending.map(({ channel }) => channel)) : undefined;
    for (const entry of pending) {
      entry.pending = false;
      for (const subscriber of entry.subscribers) {
        if (!subscriber.group) concerned.push(subscriber);
        subscriber.group = shared ?? (subscriber.group ?? root).with(entry);
      }
    }
    return concerned;
  }

  /** Flushes to a subscriber that joined after the last flush, or for which the log does not hold everything. */
  #flushAlone(subscriber: Subscriber, from: number, through: number): void {
    if (subscriber.cursor < from) subscriber.cursor = from;
    if (this.#history && hasMissing(subscriber.channels, subscriber.cursor)) {
      subscriber.live = false;
      this.#history.request(subscriber);
      return;
    }
    const batch = this.#share(readBatch(this.log, subscriber, through));
    if (batch) this.#sendLive(subscriber, batch);
  }

  #sendLive(subscriber: Subscriber, batch: Batch): void {
    this.#backpressure.sent(subscriber);
    this.#send(subscriber, batch);
  }

  #sendReplay(subscriber: Subscriber, batch: Batch): void {
    this.#backpressure.progressed(subscriber);
    // No chunk is built for a listener.
    this.#replays.spend(batch.items.length + (subscriber.kind === "connection" ? chunkOf(batch).length / 64 : 0));
    if (this.#send(subscriber, batch) && subscriber.kind === "connection") this.replayedEvents += batch.events;
  }

  #send(subscriber: Subscriber, batch: Batch): boolean {
    subscriber.live = false;
    subscriber.cursor = batch.through;
    if (!subscriber.receive(batch)) return false;
    if (subscriber.kind === "connection") {
      this.sentEvents += batch.events;
      this.sentBytes += chunkOf(batch).length;
      this.sentGaps += batch.items.length - batch.events;
      if (batch.jumpsToHead) this.overruns++;
    }
    // The log has more, but perhaps not for this subscriber.
    if (batch.more && !subscriber.live && hasNews(subscriber.channels, subscriber.cursor)) subscriber.onBlocked?.();
    return true;
  }

  /** Returns the same batch to all subscribers that read the same events, so that its chunk is built once. */
  #share(batch: Batch | undefined): Batch | undefined {
    if (!batch || batch.items.length < 2 || batch.events < batch.items.length) return batch;
    for (const other of this.#recent) if (isSameBatch(batch, other)) return other;
    this.#recent.push(batch);
    if (this.#recent.length > RECENT_BATCHES) this.#recent.shift();
    return batch;
  }
}
