// Sends appended events to the subscribers of their channels: one chunk per flush, position and set of matched channels.
import type {
  Engine,
  EngineListener,
  EngineSession,
  HistoryHost,
  HistoryLoader,
  PeerCommand,
  StreamAnswer,
  StreamRequest,
} from "../engine/engine.ts";
import { type Batch, chunkOf, type HistoryRange, hasMissing, hasNews, readBatch } from "../log/batch.ts";
import type { ChannelLog, Entry } from "../log/channel-log.ts";
import { type Gap, makeGap } from "../log/gap.ts";
import { entryCost, type Log } from "../log/log.ts";
import { ephemeralEvent, type Transient } from "../log/transient.ts";
import { forChannels, keepFor, stopOf, weave, withWaiting } from "../log/weave.ts";
import { ChannelIndex } from "./channel-index.ts";
import { type FanoutGroup, PendingChannels, RecentBatches } from "./fanout-group.ts";
import { FlushScheduler, type FlushTiming } from "./flush-scheduler.ts";
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
  onRequest(request: StreamRequest): Promise<StreamAnswer>;
  onError(error: unknown): void;
}

/** Bytes that a publisher may be ahead of the subscribers; an eighth of the log where that is less. */
const MAX_BYTES_AHEAD = 1024 * 1024;
/** Ephemeral events that may wait for a flush. */
const MAX_TRANSIENTS = 1_024;

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
  /** The channels and inboxes that have subscribers. */
  readonly channels: ChannelIndex = new ChannelIndex();
  /** Listeners that wait for the engine before they can read anything. */
  readonly waitingForEngine: Set<Subscriber> = new Set();
  readonly onCommand: FanoutHost["onCommand"];
  readonly onRequest: FanoutHost["onRequest"];
  readonly #host: FanoutHost;
  readonly #pending = new PendingChannels<Subscriber>();
  readonly #recent = new RecentBatches();
  /** Ephemeral events for the next flush. */
  #transients: Transient[] = [];
  /** Subscribers with an item that waits for the next flush. */
  readonly #addressed = new Set<Subscriber>();
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
    ({ onCommand: this.onCommand, onRequest: this.onRequest } = host);
    this.#scheduler = new FlushScheduler(() => this.flush(), timing?.window);
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
    // An ephemeral event is not for those who come after it.
    if (this.#transients.length > 0 && subscriber.kind === "connection") this.flush();
    return keys.map((key) => {
      const entry = this.channels.add(subscriber, key, this.log);
      const { channel } = entry;
      // Events that were appended while nobody read this channel, behind a flush that is still to come.
      if (channel.last > this.#through) this.#markPending(entry);
      if (channel.droppedThrough > this.position) this.#hasMissing = true;
      return channel;
    });
  }

  /** Removes a subscriber from its channels. Returns whether it was in any. */
  unsubscribe(subscriber: Subscriber): boolean {
    const wasListed = this.channels.remove(subscriber, subscriber.channels, this.log);
    this.#backpressure.caughtUp(subscriber);
    this.#addressed.delete(subscriber);
    this.cancelHistory(subscriber);
    return wasListed;
  }

  /** Whether a subscriber wants more, and waits: for the store, for its turn to read the log, or for a snapshot. */
  isLoadingHistory(subscriber: Subscriber): boolean {
    return Boolean(subscriber.snapshots?.isWaiting || this.#replays.has(subscriber) || this.#history?.has(subscriber));
  }

  /** Cancels the wait for history, because the subscriber receives something else first. Returns whether it was waiting. */
  cancelHistory(subscriber: Subscriber): boolean {
    const wasWaiting = this.isLoadingHistory(subscriber);
    subscriber.snapshots?.pause();
    this.#replays.delete(subscriber);
    this.#history?.cancel(subscriber);
    return wasWaiting;
  }

  onAppended(entry: Entry): void {
    this.#host.onAppended(entry);
    if (entry.notice) this.#hasNotice = true;
    for (const key of entry.keys) {
      const channel = this.channels.find(key);
      if (channel) this.#markPending(channel);
    }
    this.onAdvanced(entry.seq);
    const { maxBytes } = this.log;
    this.#backpressure.appended(
      Math.max(entry.bytes.length / Math.min(MAX_BYTES_AHEAD, maxBytes / 8), entryCost(entry) / (maxBytes / 8)),
    );
  }

  onEphemeral(keys: readonly string[], bytes: Uint8Array<ArrayBuffer>): void {
    const read = keys.flatMap((key) => this.channels.find(key) ?? []);
    for (const channel of read) this.#markPending(channel);
    if (read.length > 0) this.#transients.push(ephemeralEvent(keys, bytes, this.log.head));
    if (this.#transients.length >= MAX_TRANSIENTS) this.flush();
    this.#backpressure.appended(bytes.length / MAX_BYTES_AHEAD);
  }

  /** Lets an item wait for a subscriber, behind what was appended before it, and sends it if that is possible now. */
  insert(subscriber: Subscriber, item: Transient): void {
    keepFor(subscriber, [item]);
    if (item.seq <= this.position) {
      this.#resend(subscriber, undefined);
    } else {
      // Events that come before it are about to be flushed.
      this.#scheduler.request();
      this.#addressed.add(subscriber);
    }
  }

  /** Events that concern no subscriber need no flush. */
  onAdvanced(head: number = this.log.head): void {
    if (this.#pending.isEmpty && this.position === this.#through) this.position = this.#through = head;
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
    this.#pending.clear();
    this.#recent.clear();
    this.#transients = [];
    this.#history?.clear();
    for (const subscriber of this.channels.moveTo(log)) this.moveToNewLog(subscriber);
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
    for (const subscriber of this.channels.subscribersOf(key)) {
      const { cursor } = subscriber;
      const gap = { channels: [key], after, through: Math.min(through, cursor), seq: cursor };
      // Events after its cursor are still sent, in order.
      const isBehindCursor = gap.through > after;
      this.#resend(
        subscriber,
        isBehindCursor ? [...(subscriber.pendingGaps ?? []), makeGap(this.log, gap)] : undefined,
      );
    }
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
    const subscribers = this.channels.subscribers();
    for (const subscriber of this.waitingForEngine) subscribers.add(subscriber);
    for (const subscriber of subscribers) subscriber.onFanoutClosed?.();
  }

  /** A subscriber wants more: sends it what it has not read, now or in its turn, or makes it live. */
  requestNext(subscriber: Subscriber): void {
    if (subscriber.snapshots?.requestNext()) this.#backpressure.caughtUp(subscriber);
    else if (this.#replays.admit(subscriber, this.#through - subscriber.cursor)) this.#readNext(subscriber);
  }

  #readNext(subscriber: Subscriber): void {
    const { cursor, pendingGaps, channels } = subscriber;
    if (pendingGaps) {
      subscriber.pendingGaps = undefined;
      const gaps = pendingGaps.length;
      this.#sendReplay(subscriber, { items: pendingGaps, events: 0, gaps, through: cursor, more: false });
      return;
    }
    if (this.#history && hasMissing(channels, cursor)) {
      this.#backpressure.caughtUp(subscriber);
      this.#history.request(subscriber);
      return;
    }
    let batch: Batch | undefined;
    const limit = stopOf(subscriber);
    if (cursor < limit && (cursor < this.#through || this.#hasMissing)) {
      const range = limit < Infinity ? { channels, limit } : undefined;
      batch = this.#recent.share(readBatch(this.log, subscriber, this.#through, range));
      this.#replays.spend(channels.length);
    }
    batch = withWaiting(subscriber, batch);
    if (batch) {
      this.#sendReplay(subscriber, batch);
      return;
    }
    subscriber.live = true;
    subscriber.overrun = 0;
    this.#backpressure.caughtUp(subscriber);
  }

  /** Sends history that was loaded for a subscriber. */
  deliverHistory(subscriber: Subscriber, { channels, limit }: HistoryRange): void {
    const history = { channels, limit: Math.min(limit, stopOf(subscriber)) };
    const batch = this.#recent.share(readBatch(this.log, subscriber, this.#through, history));
    if (batch) {
      this.#sendReplay(subscriber, withWaiting(subscriber, batch) as Batch);
    } else {
      subscriber.cursor = Math.max(subscriber.cursor, history.limit);
      this.#requestNextAgain(subscriber);
    }
  }

  #markPending(entry: ChannelSubscribers): void {
    this.#scheduler.request();
    this.#pending.add(entry);
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

  /** Sends what is pending. A live subscriber has everything that was appended after that. */
  flush(): void {
    this.#backpressure.beforeFlush();
    this.#sendPending();
    this.#backpressure.afterFlush();
  }

  #sendPending(): void {
    const from = this.position;
    const through = (this.#through = this.log.head);
    const transients = this.#transients;
    if (transients.length > 0) this.#transients = [];
    // A single event is the same batch for everybody, whichever of its channels they read.
    const isSingle = through - from === 1 && !this.#hasMissing && transients.length === 0;
    for (const subscriber of this.#pending.take(isSingle)) {
      const group = subscriber.group as FanoutGroup;
      subscriber.group = undefined;
      if (!subscriber.live) {
        if (subscriber.kind === "connection")
          keepFor(subscriber, forChannels(transients, group.channels, subscriber.cursor));
        // A subscriber that joined after these events has nothing to wait for.
        if (hasNews(group.channels, subscriber.cursor) && !this.isLoadingHistory(subscriber)) subscriber.onBlocked?.();
      } else if (
        subscriber.cursor > from ||
        // Some of its channels may start later than these events.
        subscriber.missingRanges ||
        subscriber.waiting ||
        (this.#hasMissing && hasMissing(group.channels, from)) ||
        (this.#hasNotice && subscriber.resumedAfter !== undefined)
      ) {
        this.#flushAlone(subscriber, from, through, transients);
      } else {
        const batch = group.read(this.log, from, through, transients);
        if (batch) this.#sendLive(subscriber, batch);
      }
    }
    this.position = through;
    this.#hasMissing = this.#hasNotice = false;
    this.log.dropPassing();
    for (const subscriber of this.#addressed) if (subscriber.waiting) this.#resend(subscriber, undefined);
    this.#addressed.clear();
  }

  /** Flushes to a subscriber that joined after the last flush, or for which the log does not hold everything. */
  #flushAlone(subscriber: Subscriber, from: number, through: number, transients: readonly Transient[]): void {
    if (subscriber.cursor < from) subscriber.cursor = from;
    if (this.#history && hasMissing(subscriber.channels, subscriber.cursor)) {
      subscriber.live = false;
      this.#history.request(subscriber);
      return;
    }
    const { channels, cursor } = subscriber;
    const batch = this.#recent.share(readBatch(this.log, subscriber, through));
    const all = withWaiting(subscriber, weave(batch, forChannels(transients, channels, cursor), cursor));
    if (all) this.#sendLive(subscriber, all);
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

  #send(subscriber: Subscriber, read: Batch): boolean {
    const batch = subscriber.snapshots?.beginAfter(read) ?? read;
    subscriber.live = false;
    subscriber.cursor = read.through;
    if (!subscriber.receive(batch)) return false;
    if (subscriber.kind === "connection") {
      this.sentEvents += batch.events;
      this.sentBytes += chunkOf(batch).length;
      this.sentGaps += batch.gaps;
      if (batch.jumpsToHead) this.overruns++;
    }
    // The log has more, but perhaps not for this subscriber.
    if (batch.more && !subscriber.live && hasNews(subscriber.channels, subscriber.cursor)) subscriber.onBlocked?.();
    return true;
  }
}
