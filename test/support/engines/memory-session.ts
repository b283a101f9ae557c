import {
  type AppendResult,
  BrokerError,
  type FeedEvent,
  type MaxReplay,
  type PeerCommand,
  type Position,
  type Presence,
  type ReplayPage,
  type SharedHistoryBounds,
  type SharedLogListener,
  type SharedLogSession,
} from "../../../src/engine.ts";
import type { MemorySharedLog } from "./memory-shared-log.ts";

const down = (): BrokerError => new BrokerError("engine-down", "Refused: the store is away.");
const unknown = (): BrokerError => new BrokerError("publish-outcome-unknown", "The answer was lost.");

/** Tasks that run after a delay, in order unless `isUnordered`. */
class DelayLine {
  /** The delay of each task. */
  delay = 0;
  /** Each task takes `delay` at most, so a later one may run first. */
  isUnordered = false;
  readonly #store: MemorySharedLog;
  #tasks: { readonly due: number; readonly task: () => void }[] = [];

  constructor(store: MemorySharedLog) {
    this.#store = store;
  }

  push(task: () => void): void {
    const taskDelay = this.isUnordered ? Math.floor(Math.random() * (this.delay + 1)) : this.delay;
    const due = Math.max(this.#store.now + taskDelay, this.isUnordered ? 0 : (this.#tasks.at(-1)?.due ?? 0));
    this.#tasks.push({ due, task });
    this.#store.at(due, () => this.run());
  }

  run(): void {
    for (;;) {
      const index = this.#tasks.findIndex(({ due }) => due <= this.#store.now);
      if (index < 0) break;
      this.#tasks.splice(index, 1)[0]?.task();
    }
  }

  clear(): void {
    this.#tasks = [];
  }
}

/** A command without an answer. */
interface PendingCommand {
  wasExecuted: boolean;
  readonly isAppend: boolean;
  readonly reject: (error: unknown) => void;
}

/** Delays of one session. */
export interface Delays {
  readonly requests: number;
  readonly replies: number;
  readonly feed: number;
  readonly isUnordered: boolean;
}

/** The session of one process, with the faults that a test can cause. */
export class MemorySession implements SharedLogSession {
  readonly lease = 20_000;
  /** Number of next events that vanish without a sign. `Infinity`: everything vanishes, including checkpoints, until the feed is renewed. */
  messagesToSwallow = 0;
  /** The next append takes effect, and its answer is lost. */
  losesNextReply = false;
  /** Number of next commands that are refused. */
  commandsToRefuse = 0;
  /** Calls of `renewFeed`. */
  feedRenewals = 0;
  /** The subject of each call of `append`. */
  readonly subjects: (string | undefined)[] = [];
  /** Calls of `subscribe` and `unsubscribe`. */
  readonly subscriptionCalls: { readonly isSubscribe: boolean; readonly keys: readonly string[] }[] = [];
  readonly subscribed: Set<string> = new Set();
  presences: readonly Presence[] = [];
  isClosed = false;

  readonly #store: MemorySharedLog;
  readonly #listener: SharedLogListener;
  readonly #requests: DelayLine;
  readonly #replies: DelayLine;
  readonly #feed: DelayLine;
  readonly #pending = new Set<PendingCommand>();
  #hasCommands = false;
  #hasFeed = false;
  #isFeedHeld = false;

  constructor(store: MemorySharedLog, listener: SharedLogListener) {
    this.#store = store;
    this.#listener = listener;
    this.#requests = new DelayLine(store);
    this.#replies = new DelayLine(store);
    this.#feed = new DelayLine(store);
    if (store.isAway) return;
    queueMicrotask(() => {
      this.setCommands(true);
      this.setFeed(true);
    });
  }

  // Faults that a test causes.

  /** Sets the delays from now on; 0 is the next microtask. With `isUnordered`, replies arrive in any order. */
  delay({ requests = 0, replies = 0, feed = 0, isUnordered = false }: Partial<Delays> = {}): void {
    this.#requests.delay = requests;
    this.#replies.delay = replies;
    this.#replies.isUnordered = isUnordered;
    this.#feed.delay = feed;
  }

  /** Runs everything that is due. */
  turn(): void {
    this.#requests.run();
    this.#replies.run();
    this.#feed.run();
  }

  /** Connects the feed, or cuts it and keeps it from connecting. */
  setFeed(isConnected: boolean): void {
    this.#isFeedHeld = !isConnected;
    if (this.isClosed || this.#hasFeed === isConnected) return;
    this.#hasFeed = isConnected;
    this.#feed.clear();
    this.subscribed.clear();
    this.messagesToSwallow = 0;
    this.#listener.onFeed(isConnected);
  }

  setCommands(isConnected: boolean): void {
    if (this.isClosed || this.#hasCommands === isConnected) return;
    this.#hasCommands = isConnected;
    if (!isConnected) this.#rejectPending();
    this.#listener.onCommands(isConnected);
  }

  sendEvent(message: FeedEvent): void {
    const concerns = message.keys.some((key) => key.startsWith("@") || this.subscribed.has(key));
    if (this.#hasFeed && concerns) this.#feed.push(() => this.#deliver(() => this.#listener.onEvent(message), true));
  }

  sendCommand(command: PeerCommand): void {
    if (this.#hasFeed) this.#feed.push(() => this.#deliver(() => this.#listener.onCommand(command)));
  }

  #deliver(task: () => void, isMessage = false): void {
    const isSwallowed = this.messagesToSwallow === Infinity || (isMessage && this.messagesToSwallow > 0);
    if (isSwallowed) this.messagesToSwallow--;
    else task();
  }

  #rejectPending(): void {
    const rejected = [...this.#pending];
    this.#pending.clear();
    for (const { wasExecuted, isAppend, reject } of rejected) reject(wasExecuted && isAppend ? unknown() : down());
  }

  // Calls of the engine.

  #execute<T>(command: () => T, isAppend = false): Promise<T> {
    if (!this.#hasCommands || this.isClosed) return Promise.reject(down());
    if (this.commandsToRefuse > 0) {
      this.commandsToRefuse--;
      return Promise.reject(down());
    }
    return new Promise((resolve, reject) => {
      const pending: PendingCommand = { wasExecuted: false, isAppend, reject };
      this.#pending.add(pending);
      this.#requests.push(() => {
        if (!this.#pending.has(pending)) return;
        pending.wasExecuted = true;
        let answer: () => void;
        try {
          const value = command();
          answer = () => resolve(value);
        } catch (error) {
          answer = () => reject(error);
        }
        this.#replies.push(() => this.#pending.delete(pending) && answer());
      });
    });
  }

  append(
    keys: readonly string[],
    text: string,
    seen: Position | undefined,
    idempotencyKey: string | undefined,
    recipient: string | undefined,
    subject?: string,
  ): Promise<AppendResult> {
    this.subjects.push(subject);
    const store = this.#store;
    return this.#execute(() => {
      const print = `${keys.join("\n")}\n${text}`;
      const known = idempotencyKey === undefined ? undefined : store.idempotencyKeys.get(idempotencyKey);
      if (known && known.print !== print)
        throw new BrokerError("key-reused", "Event refused: its key was used before.");
      const hasRecipient = ({ presences }: MemorySession): boolean =>
        presences.some(({ clientId }) => clientId === recipient);
      if (recipient !== undefined && !store.lingering.has(recipient) && !store.sessions.some(hasRecipient))
        throw new BrokerError("unknown-client", "Event refused: there is no such client.");
      const { epoch, seq } = known ?? store.append(seen, keys, text);
      if (idempotencyKey !== undefined) store.idempotencyKeys.set(idempotencyKey, { print, epoch, seq });
      if (this.losesNextReply) {
        this.losesNextReply = false;
        throw unknown();
      }
      return { epoch, seq, repeated: known !== undefined };
    }, true);
  }

  subscribe(keys: readonly string[]): Promise<void> {
    this.subscriptionCalls.push({ isSubscribe: true, keys });
    return this.#execute(() => {
      if (!this.#hasFeed) throw down();
      for (const key of keys) this.subscribed.add(key);
    });
  }

  unsubscribe(keys: readonly string[]): Promise<void> {
    this.subscriptionCalls.push({ isSubscribe: false, keys });
    return this.#execute(() => {
      for (const key of keys) this.subscribed.delete(key);
    });
  }

  requestCheckpoint(token: number, keys: readonly string[], seen: Position | undefined): Promise<void> {
    return this.#execute(() => {
      const log = this.#store.provenLog(seen);
      const checkpoint = { epoch: log.epoch, head: log.head, token, last: keys.map((key) => log.lastOf(key)) };
      if (this.#hasFeed) this.#feed.push(() => this.#deliver(() => this.#listener.onCheckpoint(checkpoint)));
    });
  }

  read(epoch: string, keys: readonly string[], after: number): Promise<ReplayPage> {
    this.#store.reads.push([...keys]);
    return this.#execute(() => {
      const { log, pageSize } = this.#store;
      if (log?.epoch === epoch) return log.read(keys, after, pageSize);
      return { epoch: log?.epoch ?? "", records: [], through: 0, droppedThrough: keys.map(() => 0) };
    });
  }

  historyBounds(
    epoch: string,
    keys: readonly string[],
    from: number,
    max: MaxReplay,
    last?: number,
  ): Promise<SharedHistoryBounds> {
    return this.#execute(() => {
      const { log } = this.#store;
      if (log?.epoch === epoch) return log.historyBounds(keys, from, max, this.#store.knowsLast ? last : undefined);
      const channels = keys.map(() => ({ droppedThrough: 0, oldest: undefined, next: undefined }));
      return { epoch: log?.epoch ?? "", head: log?.head ?? 0, floor: 0, channels };
    });
  }

  renewFeed(): void {
    this.feedRenewals++;
    if (this.#isFeedHeld) return;
    this.setFeed(false);
    queueMicrotask(() => this.setFeed(true));
  }

  enter(
    presences: readonly Presence[],
    rule: "allow" | "reject" | "replace",
  ): Promise<readonly ("entered" | "barred" | "taken")[]> {
    const { sessions, barred } = this.#store;
    return this.#execute(() =>
      presences.map((presence) => {
        const { clientId, subject } = presence;
        const isSame = (other: Presence): boolean => other.clientId === clientId && other.subject === subject;
        if (barred.has(clientId)) return "barred";
        if (rule === "reject" && sessions.some((session) => session.presences.some(isSame))) return "taken";
        this.presences = [...this.presences, presence];
        if (rule === "replace") this.#commandOthers({ type: "replace", clientId, subject, barFor: 0 });
        return "entered";
      }),
    );
  }

  leave({ clientId, subject }: Presence, linger: number): Promise<void> {
    return this.#execute(() => {
      const left = this.presences.find((each) => each.clientId === clientId && each.subject === subject);
      this.presences = this.presences.filter((each) => each !== left);
      if (left && linger > 0) this.#store.lingering.add(clientId, linger);
    });
  }

  linger(ids: ReadonlyMap<string, number>): Promise<void> {
    return this.#execute(() => {
      for (const [id, ms] of ids) if (ms > 0) this.#store.lingering.add(id, ms);
    });
  }

  renew(presences: readonly Presence[]): Promise<void> {
    return this.#execute(() => {
      this.presences = presences;
    });
  }

  isBarred(clientId: string): Promise<boolean> {
    return this.#execute(() => this.#store.barred.has(clientId));
  }

  disconnect(clientId: string, barFor: number): Promise<number> {
    return this.#execute(() => {
      if (barFor > 0) this.#store.barred.add(clientId, barFor);
      this.#commandOthers({ type: "disconnect", clientId, subject: undefined, barFor });
      const others = this.#store.sessions.filter((session) => session !== this);
      return others.flatMap((session) => session.presences.filter((each) => each.clientId === clientId)).length;
    });
  }

  #commandOthers(command: PeerCommand): void {
    for (const session of this.#store.sessions) if (session !== this) session.sendCommand(command);
  }

  close(linger: number): void {
    if (linger > 0) for (const { clientId } of this.presences) this.#store.lingering.add(clientId, linger);
    this.presences = [];
    this.isClosed = true;
    this.#hasFeed = false;
    this.#feed.clear();
    this.#rejectPending();
  }
}
