import { BrokerError } from "../base/errors.ts";
import { after, every } from "../base/runtime.ts";
import { HistoryLoader, type HistoryLoaderHost } from "../delivery/history-loader.ts";
import type { AppendResult, Engine, EngineListener, EngineSession, ReplayPage } from "../engine/engine.ts";
import type { Position } from "../event/position.ts";
import type { ChannelLog } from "../log/channel-log.ts";
import { Log, type LogOptions, resolveLogOptions } from "../log/log.ts";
import type { HistoryBounds, MaxReplay } from "../log/resume.ts";
import { CatchUp } from "./catch-up.ts";
import { ChannelSubscriptions } from "./channel-subscriptions.ts";
import { type Asked, Checkpoints } from "./checkpoints.ts";
import { PresenceSync } from "./presence-sync.ts";
import { PublishAcks } from "./publish-acks.ts";
import { RetryDelays } from "./retry-delays.ts";
import type { Checkpoint, FeedEvent, SharedLog, SharedLogListener, SharedLogSession } from "./shared-log.ts";

/** Bytes of events in one page, about. */
const PAGE = 48 * 1024;
/** Milliseconds between two proofs that the feed is alive and nothing of it is missing. */
const ECHO = 5_000;
/** Milliseconds that a new client or process waits for the feed. */
const PATIENCE = 4_000;
/** Epochs that are over, remembered at the most. */
const PAST = 100;

const NOT_NOW = new Error("The store is away, or has begun anew.");

/** An engine over a log that several processes share. `options` bound what one of them holds of it. */
export function sharedLogEngine(remote: SharedLog, options: LogOptions = {}): Engine {
  const bounds = resolveLogOptions("replicaEngine()", options);
  return {
    open: (follower) =>
      new SharedLogEngineSession(remote, new Log("", bounds), follower, (epoch) => new Log(epoch, bounds)),
  };
}

/**
 * What one process holds of a log that several share: the channels that it follows, each from the position on at which it began to.
 *
 * It does not trust the feed. Every event says which one was before it in its channel; every few seconds a mark comes through the feed that says
 * where each channel is. What is missing is read, once for all clients. What cannot be put in order any more, because later events of other
 * channels were sent on, is left to each reader: who is behind it reads it, who is past it is told.
 *
 * A feed that was lost, or that cannot be believed, is `joining`: nothing that comes is taken until a mark has come that says where all channels
 * are. Then it is `healing`: what was missed is read, and what comes meanwhile waits. Then it is `up`.
 */
class SharedLogEngineSession implements EngineSession, SharedLogListener {
  readonly presence: PresenceSync;
  #log: Log;
  readonly #makeLog: (epoch: string) => Log;
  readonly #follower: EngineListener;
  readonly #remote: SharedLogSession;
  readonly #followed: ChannelSubscriptions;
  readonly #past = new Set<string>();
  #state: "lost" | "joining" | "healing" | "up" = "lost";
  #hasCommands = false;
  /** Until it is known for the first time whether commands can be given. Afterwards what cannot be done is refused at once. */
  #starting: Promise<void> | undefined;
  #started: (() => void) | undefined;
  #isClosed = false;
  readonly #marks: Checkpoints;
  /** What came while something was being healed. */
  #waiting: (FeedEvent | Checkpoint)[] = [];
  #waitingBytes = 0;
  #isPumping = false;
  /** Counts how often it was begun to take nothing of the feed. */
  #round = 0;
  readonly #returns: PublishAcks;
  readonly #pauses = new RetryDelays();
  /** The last position that this process knows of. */
  #seen: Position | undefined;
  readonly #stopEcho: () => void;

  constructor(remote: SharedLog, log: Log, follower: EngineListener, makeLog: (epoch: string) => Log) {
    this.#log = log;
    this.#makeLog = makeLog;
    this.#follower = follower;
    log.listeners.add(follower);
    this.#followed = new ChannelSubscriptions(log);
    this.#starting = new Promise((resolve) => {
      const cancel = after(PATIENCE, resolve, true);
      this.#started = () => {
        cancel();
        resolve();
      };
    });
    // Not before those go on who wait for it: what is published meanwhile comes after theirs.
    void this.#starting.then(() => {
      this.#starting = undefined;
    });
    this.#remote = remote.open(this);
    this.#marks = new Checkpoints(this.#remote, () => {
      this.onError(new Error("Nothing comes through the feed; it is made anew."));
      this.#lose();
      this.#remote.renewFeed();
    });
    this.presence = new PresenceSync(this.#remote, (error) => this.onError(error));
    this.#returns = new PublishAcks(
      (position) => this.#isBack(position),
      () => void this.#echo(),
    );
    this.#stopEcho = every(ECHO, () => void this.#echo());
  }

  get log(): Log {
    return this.#log;
  }

  get state(): "up" | "down" {
    return this.#state === "up" && this.#hasCommands ? "up" : "down";
  }

  async append(keys: readonly string[], text: string, nonce?: string, recipient?: string): Promise<AppendResult> {
    // All that wait for this go on in their order.
    if (this.#starting !== undefined) await this.#starting;
    const appended = await this.#remote.append(keys, text, this.#seen, nonce, recipient);
    // Of an epoch that may be over before this process began.
    if (appended.repeated && appended.epoch !== this.#log.epoch) return appended;
    this.#see(appended);
    if (this.#state === "up" && keys.some((key) => this.#followed.isJoined(key))) await this.#returned(appended);
    return appended;
  }

  subscribe(keys: readonly string[]): Promise<void> | undefined {
    const isHere = this.#followed.add(keys);
    if (this.#state === "up" && isHere) return undefined;
    const joined =
      this.#hasCommands || this.#starting !== undefined
        ? this.#followed.joined(keys, PATIENCE)
        : Promise.reject(NOT_NOW);
    void this.#pump();
    return joined.catch((cause) => {
      this.#followed.remove(keys);
      throw new BrokerError("engine-down", "Refused: the feed of events is away.", { cause });
    });
  }

  unsubscribe(keys: readonly string[]): void {
    this.#followed.remove(keys);
  }

  async read(keys: readonly string[], from: number): Promise<ReplayPage> {
    const { epoch } = this.#log;
    const page = await this.#remote.read(epoch, keys, from, PAGE);
    this.#suspect(epoch, page.epoch);
    return page;
  }

  pages(home: HistoryLoaderHost): HistoryLoader {
    return new HistoryLoader((keys, from) => this.read(keys, from), home);
  }

  async historyBounds(keys: readonly string[], from: number, max: MaxReplay): Promise<HistoryBounds> {
    const { epoch } = this.#log;
    const survey = await this.#remote.historyBounds(epoch, keys, from, max);
    this.#suspect(epoch, survey.epoch);
    if (survey.epoch !== epoch) throw new BrokerError("engine-down", "Refused: the log began anew.");
    const channels = survey.channels.map((extent, index) => ({ key: keys[index] as string, ...extent }));
    return { ...survey, channels };
  }

  async head(): Promise<Position> {
    if (this.#starting !== undefined) await this.#starting;
    const { epoch, head } = await this.#remote.historyBounds("", [], 0, {});
    return { epoch, seq: head };
  }

  close(linger = 0): void {
    this.#isClosed = true;
    this.#hasCommands = false;
    this.#started?.();
    this.#stopEcho();
    this.#lose();
    this.#pauses.end();
    this.presence.close();
    this.#followed.fail(NOT_NOW);
    this.#log.listeners.delete(this.#follower);
    this.#remote.close(linger);
  }

  onFeed(isThere: boolean): void {
    if (this.#isClosed) return;
    this.#lose();
    if (!isThere) return;
    this.#followed.unsubscribed();
    this.#rejoin();
  }

  onCommands(isThere: boolean): void {
    if (this.#isClosed) return;
    this.#hasCommands = isThere;
    if (!isThere) return;
    this.#started?.();
    // What the store had of this process may be lost.
    void this.presence.renew();
    void this.#pump();
  }

  onCommand(order: Parameters<SharedLogListener["onCommand"]>[0]): void {
    if (!this.#isClosed) this.#follower.onCommand?.(order);
  }

  onError(error: unknown): void {
    if (!this.#isClosed) this.#follower.onError?.(error);
  }

  onEvent(message: FeedEvent): void {
    const { epoch, seq, keys, text } = message;
    if (this.#state === "healing") {
      this.#keepWaiting(message, text.length);
    } else if (this.#state === "up" && !this.#past.has(epoch)) {
      const channels = epoch === this.#log.epoch ? this.#continued(message) : undefined;
      if (!channels) {
        this.#rejoin();
      } else if (seq > this.#log.head) {
        if (channels.length > 0) this.#log.appendAt(seq, keys, channels, text);
        else this.#log.advance(seq);
        this.#see(message);
        this.#returns.release();
      }
    }
  }

  /** The records of its channels, of those that are followed; `undefined` if something before it did not come. */
  #continued({ seq, keys, previous }: FeedEvent): readonly ChannelLog[] | undefined {
    const channels: ChannelLog[] = [];
    for (const [index, key] of keys.entries()) {
      const channel = this.#followed.channel(key);
      if (!channel || channel.last >= seq) continue;
      if ((previous[index] ?? Infinity) > this.#followed.provedUpTo(key)) return undefined;
      channels.push(channel);
    }
    return channels;
  }

  onCheckpoint(mark: Checkpoint): void {
    const asked = this.#marks.came(mark);
    if (this.#state === "healing") this.#keepWaiting(mark, 0);
    else if (asked) this.#takeMark(mark, asked);
  }

  #takeMark(mark: Checkpoint, asked: Asked): void {
    const isCurrent = mark.epoch === this.#log.epoch;
    if (!asked.isAll && (this.#state !== "up" || !isCurrent)) {
      // It says nothing of what the channels are at that are followed.
      if (this.#state === "up") this.#rejoin();
      asked.reject(NOT_NOW);
      return;
    }
    if (!isCurrent) this.#begin(mark, asked.keys);
    this.#see({ epoch: mark.epoch, seq: mark.head });
    const healing = new CatchUp(this.#log, this.#follower, this.#followed, asked.keys, mark);
    if (healing.isDone) {
      this.#settle(mark, asked);
    } else {
      this.#state = "healing";
      void this.#heal(healing, mark, asked);
    }
  }

  async #heal(healing: CatchUp, mark: Checkpoint, asked: Asked): Promise<void> {
    const round = this.#round;
    const isOver = (): boolean => round !== this.#round;
    const isHealed = await healing.run(
      (keys, from) => this.#remote.read(mark.epoch, keys, from, PAGE),
      isOver,
      (error) => {
        this.onError(error);
        return this.#pauses.wait();
      },
    );
    if (isHealed && !isOver()) {
      this.#settle(mark, asked);
    } else {
      if (!isOver()) this.#rejoin();
      asked.reject(NOT_NOW);
    }
  }

  /** Nothing up to a mark is missing. */
  #settle(mark: Checkpoint, asked: Asked): void {
    this.#state = "up";
    this.#log.advance(mark.head);
    this.#followed.join(asked.keys, mark);
    asked.resolve(mark);
    this.#returns.release();
    const waiting = this.#waiting.splice(0);
    this.#waitingBytes = 0;
    for (const each of waiting) {
      if ("token" in each) this.onCheckpoint(each);
      else this.onEvent(each);
    }
    // Who came meanwhile.
    void this.#pump();
  }

  #keepWaiting(what: FeedEvent | Checkpoint, bytes: number): void {
    this.#waiting.push(what);
    this.#waitingBytes += bytes + 256;
    // Who reads so slowly what was missed finds it kept elsewhere.
    if (this.#waitingBytes > this.#log.maxBytes / 4) this.#rejoin();
  }

  /** The log goes on in another epoch. */
  #begin({ epoch, head, last }: Checkpoint, keys: readonly string[]): void {
    const old = this.#log;
    this.#past.add(old.epoch);
    for (const oldest of this.#past) {
      if (this.#past.size <= PAST) break;
      this.#past.delete(oldest);
    }
    old.listeners.delete(this.#follower);
    const log = this.#makeLog(epoch);
    log.head = head;
    log.listeners.add(this.#follower);
    this.#log = log;
    this.#followed.move(log, keys, last);
    this.#seen = undefined;
    this.#follower.onLogReplaced?.(log);
  }

  /** Has marks come of all channels while it is joining, and then of those that are not joined: one after another. */
  async #pump(): Promise<void> {
    if (this.#isPumping) return;
    this.#isPumping = true;
    // Those of this turn together.
    await undefined;
    while (!this.#isClosed && this.#hasCommands) {
      const isAll = this.#state === "joining";
      const keys = isAll ? this.#followed.keys : this.#followed.missing;
      if (!isAll && (this.#state !== "up" || keys.length === 0)) break;
      const round = this.#round;
      const channels = this.#followed.toSubscribe(keys);
      try {
        if (channels.length > 0) await this.#remote.subscribe(channels);
        await this.#marks.ask(keys, isAll, this.#seen);
      } catch (error) {
        this.#followed.unsubscribed(channels);
        if (round !== this.#round) continue;
        this.onError(error);
        this.#followed.fail(error);
        await this.#pauses.wait();
      }
    }
    this.#isPumping = false;
  }

  /** Takes nothing of the feed before it was said where all channels are. */
  #rejoin(): void {
    this.#lose();
    this.#state = "joining";
    void this.#pump();
  }

  /** Nothing that was asked for through the feed will come. */
  #lose(): void {
    this.#round++;
    this.#state = "lost";
    this.#waiting.length = this.#waitingBytes = 0;
    this.#marks.rejectAll(NOT_NOW);
    this.#followed.lose();
    this.#returns.release();
  }

  /** Proves that the feed is alive, and that nothing is missing that has nothing after it. Gives up channels that nobody reads any more. */
  async #echo(): Promise<void> {
    if (this.#state !== "up" || !this.#hasCommands) return;
    const idle = this.#followed.dropIdle();
    try {
      if (idle.length > 0) await this.#remote.unsubscribe(idle);
      await this.#marks.ask(this.#followed.joinedKeys, false, this.#seen);
    } catch {
      // The feed is being seen to, or commands are away.
    }
  }

  /** What was read is of another epoch: a mark will tell. */
  #suspect(epoch: string, current: string): void {
    if (epoch === current || epoch !== this.#log.epoch || this.#state !== "up") return;
    this.#rejoin();
  }

  #see({ epoch, seq }: Position): void {
    if (this.#past.has(epoch)) return;
    if (this.#seen?.epoch !== epoch || this.#seen.seq < seq) this.#seen = { epoch, seq };
  }

  #returned(appended: Position): Promise<void> | undefined {
    if (this.#isBack(appended)) return undefined;
    if (appended.epoch !== this.#log.epoch) this.#rejoin();
    return this.#returns.wait(appended);
  }

  /** Whether an event was sent on, or nobody knows whether it will be. */
  #isBack({ epoch, seq }: Position): boolean {
    if (this.#state === "lost" || this.#isClosed || this.#past.has(epoch)) return true;
    return epoch === this.#log.epoch && seq <= this.#log.head;
  }
}
