// Turns a shared log into an engine. Holds the part of the log that this process needs, and proves that no event of it is missing.
import { every } from "../base/runtime.ts";
import type { AppendResult, Engine, EngineListener, EngineSession, PeerCommand, ReplayPage } from "../engine/engine.ts";
import { historyLoader } from "../engine/history-loader.ts";
import { COMMON } from "../event/channel-key.ts";
import type { Position } from "../event/position.ts";
import { Log } from "../log/log.ts";
import { type LogOptions, resolveLogOptions } from "../log/log-options.ts";
import type { HistoryBounds, MaxReplay } from "../log/resume.ts";
import { refuseEphemeral, sendEphemeral } from "../log/transient.ts";
import { CatchUp, PAGE_BYTES } from "./catch-up.ts";
import { ChannelSubscriptions } from "./channel-subscriptions.ts";
import { type CheckpointRequest, Checkpoints } from "./checkpoints.ts";
import { Deferred } from "./deferred.ts";
import { historyBoundsOf } from "./history-bounds.ts";
import { Lookups } from "./lookups.ts";
import { parseLostNotice, withNotices } from "./lost-notice.ts";
import { PresenceSync } from "./presence-sync.ts";
import { PublishAcks } from "./publish-acks.ts";
import { rejectSubscription, UNAVAILABLE } from "./refusals.ts";
import { RetryDelays } from "./retry-delays.ts";
import { SeenPosition } from "./seen-position.ts";
import type { Checkpoint, FeedEvent, SharedLog, SharedLogListener, SharedLogSession } from "./shared-log.ts";
import { Startup } from "./startup.ts";

/** The interval of the checkpoints that prove that the feed works and no event of it is missing. */
const VERIFY_MS = 5_000;
/** Milliseconds for which a new client waits for the feed, and the first publisher for the store. */
const STARTUP_MS = 4_000;

/**
 * Creates an engine over a log that several processes share. `options` bound the part of it that one process holds.
 *
 * @throws `RangeError` for a number out of its range, `TypeError` for an unknown option.
 */
export function sharedLogEngine(sharedLog: SharedLog, options: LogOptions = {}): Engine {
  const bounds = resolveLogOptions("sharedLogEngine()", options);
  return {
    open: (listener) =>
      new SharedLogEngineSession(sharedLog, new Log("", bounds), listener, (epoch) => new Log(epoch, bounds)),
  };
}

/**
 * The part of a shared log that one process holds: its subscribed channels, each from the position at which it subscribed.
 * The session does not trust the feed. Every event carries the previous position of each of its channels, and every few seconds a checkpoint
 * travels through the feed with the last position of each channel. What is missing is read from the store once for all clients. README.md has more.
 */
class SharedLogEngineSession implements EngineSession, SharedLogListener {
  readonly presence: PresenceSync;
  readonly loadHistory: NonNullable<EngineSession["loadHistory"]> = historyLoader((keys, after) =>
    this.read(keys, after),
  );
  readonly openRuns?: NonNullable<EngineSession["openRuns"]>;
  readonly onRequest: NonNullable<SharedLogListener["onRequest"]> = (request) =>
    this.#listener.onRequest?.(request) ?? Promise.reject(UNAVAILABLE);
  #log: Log;
  readonly #createLog: (epoch: string) => Log;
  readonly #listener: EngineListener;
  readonly #store: SharedLogSession;
  readonly #subscriptions: ChannelSubscriptions;
  readonly #seen = new SeenPosition();
  #state: "disconnected" | "synchronizing" | "catching-up" | "up" = "disconnected";
  #hasCommands = false;
  readonly #startup = new Startup(STARTUP_MS);
  #isClosed = false;
  readonly #checkpoints: Checkpoints;
  readonly #deferred = new Deferred();
  #isSynchronizing = false;
  /** Incremented whenever the session stops trusting the feed, so that results of earlier work are recognized as obsolete. */
  #generation = 0;
  readonly #publishAcks: PublishAcks;
  readonly #retryDelays = new RetryDelays();
  readonly #lookups = new Lookups();
  /** Pages of history: for streams that are behind, and for `history()`. */
  readonly #reads = new Lookups();
  readonly #stopVerifying: () => void;

  constructor(sharedLog: SharedLog, log: Log, listener: EngineListener, createLog: (epoch: string) => Log) {
    this.#log = log;
    this.#createLog = createLog;
    this.#listener = listener;
    log.listeners.add(listener);
    this.#subscriptions = new ChannelSubscriptions(log);
    this.#store = sharedLog.open(this);
    this.#checkpoints = new Checkpoints(this.#store, () => {
      this.onError(new Error("Feed replaced: it did not deliver a checkpoint in time."));
      this.#leaveFeed();
      this.#store.renewFeed();
    });
    this.presence = new PresenceSync(this.#store, this);
    const openRuns = this.#store.openRuns?.bind(this.#store);
    if (openRuns) this.openRuns = () => openRuns(() => (this.#startup.isPending ? this.#startup.ended : undefined));
    this.#publishAcks = new PublishAcks(
      (position) => this.#isSettled(position),
      () => void this.#verifyFeed(),
    );
    this.#stopVerifying = every(VERIFY_MS, () => void this.#verifyFeed());
  }

  get log(): Log {
    return this.#log;
  }

  get state(): "up" | "down" {
    return this.#state === "up" && this.#hasCommands ? "up" : "down";
  }

  async append(
    keys: readonly string[],
    text: string,
    idempotencyKey?: string,
    recipient?: string,
    subject?: string,
  ): Promise<AppendResult> {
    this.#log.checkChannels(keys);
    if (this.#startup.isPending) await this.#startup.ended;
    const appended = await this.#store.append(keys, text, this.#seen.last, idempotencyKey, recipient, subject);
    // The epoch of a repeated event may have ended before this process started.
    if (appended.repeated && appended.epoch !== this.#log.epoch) return appended;
    this.#seen.note(appended);
    if (this.#state === "up" && keys.some((key) => this.#subscriptions.isSynchronized(key)))
      await this.#whenDelivered(appended);
    return appended;
  }

  async sendEphemeral(keys: readonly string[], text: string): Promise<void> {
    if (this.#state !== "up") await this.joinFeed();
    await (this.#store.sendEphemeral?.(keys, text) ?? refuseEphemeral());
  }

  subscribe(keys: readonly string[]): Promise<void> | undefined {
    const areSynchronized = this.#subscriptions.add(keys);
    if (this.#state === "up" && areSynchronized) return undefined;
    const synchronized =
      this.#hasCommands || this.#startup.isPending
        ? this.#subscriptions.whenSynchronized(keys, STARTUP_MS)
        : Promise.reject(UNAVAILABLE);
    void this.#synchronize();
    return synchronized.catch((cause) => {
      this.#subscriptions.remove(keys);
      return rejectSubscription(cause);
    });
  }

  /** Resolves when this process is in the feed: before that, it could not prove that it belongs to it. */
  async joinFeed(): Promise<void> {
    if (this.#state !== "up") await this.subscribe([COMMON])?.then(() => this.unsubscribe([COMMON]));
  }

  async settle(): Promise<void> {
    await this.joinFeed();
    await this.#checkpoints.request([], false, this.#seen.last).catch(rejectSubscription);
  }

  unsubscribe(keys: readonly string[]): void {
    this.#subscriptions.remove(keys);
  }

  async read(keys: readonly string[], after: number): Promise<ReplayPage> {
    const { epoch } = this.#log;
    const page = await this.#reads.run(() => this.#store.read(epoch, keys, after, PAGE_BYTES));
    this.#checkEpoch(epoch, page.epoch);
    return withNotices(page);
  }

  async historyBounds(keys: readonly string[], after: number, max: MaxReplay, last?: number): Promise<HistoryBounds> {
    const { epoch } = this.#log;
    const bounds = await this.#lookups.run(() => this.#store.historyBounds(epoch, keys, after, max, last));
    this.#checkEpoch(epoch, bounds.epoch);
    return historyBoundsOf(epoch, bounds, keys, last);
  }

  async head(): Promise<Position> {
    if (this.#startup.isPending) await this.#startup.ended;
    const { epoch, head: seq } = await this.#store.historyBounds("", [], 0, {});
    return { epoch, seq };
  }

  close(lingerMs = 0): void {
    this.#isClosed = true;
    this.#hasCommands = false;
    this.#startup.end();
    this.#stopVerifying();
    this.#leaveFeed();
    this.#retryDelays.endAll();
    this.presence.close();
    this.#subscriptions.rejectWaiters(UNAVAILABLE);
    this.#log.listeners.delete(this.#listener);
    this.#store.close(lingerMs);
  }

  onFeed(isConnected: boolean): void {
    if (this.#isClosed) return;
    this.#leaveFeed();
    if (!isConnected) return;
    this.#subscriptions.markUnsubscribed();
    this.#resynchronize();
  }

  onCommands(isConnected: boolean): void {
    if (this.#isClosed) return;
    this.#hasCommands = isConnected;
    if (!isConnected) return;
    this.#startup.end();
    void this.presence.renew();
    void this.#synchronize();
  }

  onCommand(command: PeerCommand): void {
    if (!this.#isClosed) this.#listener.onCommand?.(command);
  }

  onError(error: unknown): void {
    if (!this.#isClosed) this.#listener.onError?.(error);
  }

  onEvent(event: FeedEvent): void {
    const { epoch, seq, keys, text } = event;
    if (this.#state === "catching-up") {
      this.#defer(event);
    } else if (this.#state === "up" && !this.#seen.isPast(epoch)) {
      const channels = this.#seen.believes(event, this.#log.epoch)
        ? this.#subscriptions.continuedChannels(event)
        : undefined;
      if (!channels) {
        this.#resynchronize();
      } else if (seq > this.#log.head) {
        if (channels.length > 0) this.#log.appendAt(seq, keys, channels, text, parseLostNotice(text, epoch));
        else this.#log.advance(seq);
        this.#seen.note(event);
        this.#publishAcks.release();
      }
    }
  }

  onEphemeral(epoch: string, keys: readonly string[], text: string): void {
    // Nobody could receive it in order while the session catches up.
    if (this.#state === "up" && epoch === this.#log.epoch) sendEphemeral(this.#log, keys, text);
  }

  onCheckpoint(checkpoint: Checkpoint): void {
    const request = this.#checkpoints.arrive(checkpoint);
    if (this.#state === "catching-up") this.#defer(checkpoint);
    else if (request) this.#applyCheckpoint(checkpoint, request);
  }

  #applyCheckpoint(checkpoint: Checkpoint, request: CheckpointRequest): void {
    const isCurrent = checkpoint.epoch === this.#log.epoch;
    if (!request.coversAll && (this.#state !== "up" || !isCurrent)) {
      // The checkpoint says nothing about the other subscribed channels.
      if (this.#state === "up") this.#resynchronize();
      request.reject(UNAVAILABLE);
      return;
    }
    const lie = this.#seen.findLie(checkpoint);
    if (lie) this.onError(lie);
    if (!isCurrent) this.#replaceLog(checkpoint, request.keys);
    this.#seen.note({ epoch: checkpoint.epoch, seq: checkpoint.head });
    const catchUp = new CatchUp(this.#log, this.#listener, this.#subscriptions, request.keys, checkpoint);
    if (catchUp.isDone) {
      this.#complete(checkpoint, request);
    } else {
      this.#state = "catching-up";
      void this.#catchUp(catchUp, checkpoint, request);
    }
  }

  async #catchUp(catchUp: CatchUp, checkpoint: Checkpoint, request: CheckpointRequest): Promise<void> {
    const generation = this.#generation;
    const isObsolete = (): boolean => generation !== this.#generation;
    const isApplied = await catchUp.run(this.#store, isObsolete, (error) => {
      this.onError(error);
      return this.#retryDelays.wait();
    });
    if (isApplied && !isObsolete()) {
      this.#complete(checkpoint, request);
    } else {
      if (!isObsolete()) this.#resynchronize();
      request.reject(UNAVAILABLE);
    }
  }

  /** Continues with the feed: no event up to the checkpoint is missing. */
  #complete(checkpoint: Checkpoint, request: CheckpointRequest): void {
    this.#state = "up";
    this.#log.advance(checkpoint.head);
    this.#subscriptions.markSynchronized(request.keys, checkpoint);
    request.resolve(checkpoint);
    this.#publishAcks.release();
    for (const item of this.#deferred.take()) {
      if ("token" in item) this.onCheckpoint(item);
      else this.onEvent(item);
    }
    // Channels may have been added in the meantime.
    void this.#synchronize();
  }

  #defer(item: FeedEvent | Checkpoint): void {
    this.#deferred.add(item);
    // If reading takes this long, the store still retains the deferred events too.
    if (this.#deferred.bytes > this.#log.maxBytes / 4) this.#resynchronize();
  }

  /** Continues with the log of another epoch. */
  #replaceLog({ epoch, head, last }: Checkpoint, keys: readonly string[]): void {
    this.#seen.endEpoch(this.#log.epoch);
    this.#log.listeners.delete(this.#listener);
    const log = this.#createLog(epoch);
    log.head = head;
    log.listeners.add(this.#listener);
    this.#log = log;
    this.#subscriptions.replaceLog(log, keys, last);
    this.#listener.onLogReplaced?.(log);
  }

  /**
   * Subscribes to channels in the store and requests checkpoints, one after another: of all channels while the session is synchronizing,
   * and then of channels that were added.
   */
  async #synchronize(): Promise<void> {
    if (this.#isSynchronizing) return;
    this.#isSynchronizing = true;
    // One request for all channels that are added in this turn.
    await undefined;
    while (!this.#isClosed && this.#hasCommands) {
      const coversAll = this.#state === "synchronizing";
      const keys = coversAll ? this.#subscriptions.keys : this.#subscriptions.unsynchronizedKeys;
      if (!coversAll && (this.#state !== "up" || keys.length === 0)) break;
      const generation = this.#generation;
      const unsubscribed = this.#subscriptions.takeUnsubscribed(keys);
      try {
        if (unsubscribed.length > 0) await this.#store.subscribe(unsubscribed);
        await this.#checkpoints.request(keys, coversAll, this.#seen.last);
      } catch (error) {
        this.#subscriptions.markUnsubscribed(unsubscribed);
        if (generation !== this.#generation) continue;
        this.onError(error);
        this.#subscriptions.rejectWaiters(error);
        await this.#retryDelays.wait();
      }
    }
    this.#isSynchronizing = false;
  }

  /** Ignores the feed until a checkpoint of all channels has arrived. */
  #resynchronize(): void {
    this.#leaveFeed();
    this.#state = "synchronizing";
    void this.#synchronize();
  }

  /** Ignores the feed, and gives up everything that was expected through it. */
  #leaveFeed(): void {
    this.#generation++;
    this.#state = "disconnected";
    this.#deferred.take();
    this.#checkpoints.rejectAll(UNAVAILABLE);
    this.#subscriptions.markAllUnsynchronized();
    this.#publishAcks.release();
  }

  /**
   * Requests a checkpoint, which proves that the feed works, and finds a missing event that no later one has revealed. Unsubscribes from
   * channels that have had no subscriber for a while.
   */
  async #verifyFeed(): Promise<void> {
    if (this.#state !== "up" || !this.#hasCommands) return;
    const idle = this.#subscriptions.forgetIdle();
    try {
      if (idle.length > 0) await this.#store.unsubscribe(idle);
      await this.#checkpoints.request(this.#subscriptions.synchronizedKeys, false, this.#seen.last);
    } catch {
      // The feed is already being restored, or commands cannot be given.
    }
  }

  /** Checks an answer about the log of `epoch`. If the store has another epoch now, a checkpoint will report its position. */
  #checkEpoch(epoch: string, storeEpoch: string): void {
    if (epoch === storeEpoch || epoch !== this.#log.epoch || this.#state !== "up") return;
    this.#resynchronize();
  }

  #whenDelivered(appended: Position): Promise<void> | undefined {
    if (this.#isSettled(appended)) return undefined;
    if (appended.epoch !== this.#log.epoch) this.#resynchronize();
    return this.#publishAcks.wait(appended);
  }

  /** Whether the event at a position was delivered, or it is unknown whether it will be. */
  #isSettled({ epoch, seq }: Position): boolean {
    if (this.#state === "disconnected" || this.#isClosed || this.#seen.isPast(epoch)) return true;
    return epoch === this.#log.epoch && seq <= this.#log.head;
  }
}
