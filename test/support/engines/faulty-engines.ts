// Sessions of an engine over `AsynchronousLog`. A session keeps the contract, except for one defect.
import {
  type AppendResult,
  BrokerError,
  type EngineListener,
  type EngineSession,
  type Entry,
  type Log,
  type PeerCommand,
  type PresenceStore,
  type ReplayPage,
  readPage,
} from "../../../src/engine.ts";
import type { AsynchronousLog } from "./asynchronous-log.ts";

/** The ways to break the contract. An engine has one of them. */
export type Defect =
  | "drops the last message"
  | "drops a message"
  | "does not heal a feed that was cut"
  | "ignores what was before a message"
  | "forgets its subscriptions with its feed"
  | "keeps a dead feed"
  | "reports too late what was missed"
  | "moves its head before it reports"
  | "acknowledges early"
  | "repeats a position"
  | "has an epoch without a wire form"
  | "loses the order"
  | "reports to each process in another order"
  | "reports twice"
  | "reports ephemeral events twice"
  | "reports ephemeral events before their time"
  | "appends ephemeral events"
  | "changes the text"
  | "ignores case"
  | "answers a read from before the subscribe"
  | "reads an old state"
  | "reads less than it says"
  | "reads another text"
  | "counts what it reads as dropped"
  | "counts unknown channels as dropped"
  | "reads an event once for each channel"
  | "drops for all channels what one channel drops"
  | "hides what was dropped"
  | "hides what an empty channel dropped"
  | "reports too much as dropped"
  | "retains one event less"
  | "retains everything"
  | "subscribes too early"
  | "does not count subscriptions"
  | "forgets keys"
  | "knows the keys of one process only"
  | "accepts another event with the same key"
  | "confuses similar keys"
  | "retries an unknown outcome"
  | "reports an unknown outcome as refused"
  | "hides that it is away"
  | "waits while it is away"
  | "appends later what it refused"
  | "forgets its subscriptions when it was away"
  | "keeps its epoch"
  | "calls a closed listener"
  | "closes with the first process"
  | "loses its log with its last process"
  | "hides its new log"
  | "keeps its clients to itself"
  | "accepts every client id"
  | "has an epoch for each process"
  | "has one epoch for all logs";

/** Waits for a later turn, as an answer over a network does. */
const later = (ms = 0): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
/** Milliseconds by which a defect delays a report or a subscription. */
const DELAY_MS = 30;
/** Milliseconds between two looks at the head. */
const POLL_MS = 5;

const away = (): BrokerError => new BrokerError("engine-down", "Event refused: the log is away.");
const unknown = (): BrokerError => new BrokerError("publish-outcome-unknown", "The answer was lost.");

export class FaultySession implements EngineSession {
  readonly presence: PresenceStore;
  swallows = false;
  isClosed = false;
  /** The log of the store, with the head that this process has reached. */
  log: Log;
  readonly #store: AsynchronousLog;
  readonly #listener: EngineListener;
  readonly #index: number;
  /** For each channel: how often it is subscribed, and the position from which its events are reported. */
  readonly #keys = new Map<string, { count: number; from: number }>();
  #storeLog: Log;
  /** Every event up to here was reported. */
  #position: number;
  #isCut = false;
  #lastSeq = 0;
  /** Reports that a defect delays. */
  readonly #delayed: (() => void)[] = [];
  /** Appends that a defect makes later, although they were refused. */
  readonly #refused: (() => void)[] = [];
  /** Pages from before a subscription, which a defect returns. */
  readonly #oldPages = new Map<string, ReplayPage>();
  readonly #poller: ReturnType<typeof setInterval>;

  constructor(store: AsynchronousLog, listener: EngineListener, index: number) {
    this.#store = store;
    this.#listener = listener;
    this.#index = index;
    this.#storeLog = store.log;
    this.log = this.#withOwnHead(store.log);
    this.#position = store.log.head;
    this.presence = store.presenceOf(this);
    this.#poller = setInterval(() => this.#poll(), POLL_MS);
  }

  get state(): "up" | "down" {
    return this.#store.isAway && !this.#has("hides that it is away") ? "down" : "up";
  }

  #has(defect: Defect): boolean {
    return this.#store.defect === defect;
  }

  // Messages from the store.

  /** A message of the feed arrived. */
  receive(entry: Entry): void {
    this.#followNewLog();
    if (this.swallows || this.#isCut || (this.isClosed && !this.#has("calls a closed listener"))) return;
    if (this.#has("drops a message") && entry.seq % 5 === 0) {
      this.#position = entry.seq;
      return;
    }
    if (this.#has("ignores what was before a message")) this.#position = Math.max(this.#position, entry.seq - 1);
    if (this.#has("acknowledges early")) setTimeout(() => this.#catchUp(), DELAY_MS);
    else this.#catchUp(entry);
  }

  /** An ephemeral event arrived, behind the messages of the feed. */
  receiveEphemeral(keys: readonly string[], text: string): void {
    if (this.swallows || this.#isCut || this.isClosed) return;
    this.#catchUp();
    const times = this.#has("reports ephemeral events twice") ? 2 : 1;
    for (let time = 0; time < times; time++) this.#listener.onEphemeral?.(keys, new TextEncoder().encode(text));
  }

  sendCommand(command: PeerCommand): void {
    this.#listener.onCommand?.(command);
  }

  /** Looks for events that were appended and did not arrive. */
  #poll(): void {
    if (this.#store.isAway) return;
    if (this.#isCut) {
      this.#isCut = false;
      if (this.#has("does not heal a feed that was cut")) this.#position = this.#store.log.head;
    }
    if (this.#has("keeps a dead feed") && this.swallows) return;
    if (this.#has("acknowledges early")) return;
    if (this.#has("drops the last message") || this.#has("ignores what was before a message")) return;
    // With this defect only the next message shows that one was missed.
    if (this.#has("reports too late what was missed")) return;
    this.#followNewLog();
    this.#catchUp();
  }

  /** Continues with the store's new log, if there is one. */
  #followNewLog(): void {
    if (this.#storeLog === this.#store.log) return;
    this.#storeLog = this.#store.log;
    this.log = this.#withOwnHead(this.#storeLog);
    this.#position = 0;
    for (const key of this.#keys.values()) key.from = 0;
    if (!this.#has("hides its new log")) this.#listener.onLogReplaced?.(this.log);
  }

  /** Returns a log whose head is the position of this process. */
  #withOwnHead(log: Log): Log {
    if (this.#has("moves its head before it reports")) return log;
    return new Proxy(log, {
      get: (_, name: keyof Log) => {
        if (name === "head") return Math.min(this.#position, log.head);
        const value: unknown = log[name];
        return typeof value === "function" ? value.bind(log) : value;
      },
    });
  }

  /** Reports everything up to the head, in order. With `reportsAsMissed`, every event other than that of the message is reported as missed. */
  #catchUp(message?: Entry): void {
    if (this.isClosed && !this.#has("calls a closed listener")) return;
    const { log } = this.#store;
    const entries: Entry[] = [];
    while (this.#position < log.head) {
      const entry = this.#nextEntry();
      this.#position = entry?.seq ?? log.head;
      if (entry) entries.push(entry);
    }
    const isLate = this.#has("reports too late what was missed");
    if (isLate && message && entries.includes(message)) this.#report(message);
    for (const entry of entries) {
      if (!this.#store.reportsAsMissed && !isLate) this.#report(entry);
      else if (entry !== message)
        for (const key of entry.keys) if (this.#keys.has(key)) this.#listener.onMissed?.(key, entry.seq - 1, entry.seq);
    }
    if (this.#store.reportsAsMissed && message && entries.includes(message)) this.#report(message);
  }

  /** Returns the next event of the subscribed channels. */
  #nextEntry(): Entry | undefined {
    let first: Entry | undefined;
    for (const [key, { from }] of this.#keys) {
      const channel = this.#store.log.find(key);
      const entry = channel?.at(channel.indexAfter(Math.max(this.#position, from)));
      if (entry && !(first && first.seq < entry.seq)) first = entry;
    }
    return first;
  }

  #report(entry: Entry): void {
    const { onAppended } = this.#listener;
    const report = (): void => onAppended.call(this.#listener, entry);
    const isDelayed =
      this.#has("loses the order") || (this.#has("reports to each process in another order") && this.#index === 1);
    if (isDelayed && entry.seq % 3 === 0) {
      this.#delayed.push(report);
      setTimeout(() => this.#delayed.shift()?.(), DELAY_MS);
      return;
    }
    if (this.#has("changes the text")) {
      const bytes = entry.bytes.map((byte) => (byte === 9 ? 32 : byte));
      onAppended.call(this.#listener, { ...entry, bytes });
      return;
    }
    report();
    this.#delayed.shift()?.();
    if (this.#has("reports twice") && entry.keys.filter((key) => this.#keys.has(key)).length > 1) report();
  }

  cut(): void {
    this.#isCut = true;
    if (this.#has("forgets its subscriptions with its feed")) this.#keys.clear();
  }

  onStoreBack(): void {
    if (this.#has("forgets its subscriptions when it was away")) this.#keys.clear();
    for (const append of this.#refused.splice(0)) append();
  }

  // Calls of the broker.

  async sendEphemeral(keys: readonly string[], text: string): Promise<void> {
    const store = this.#store;
    if (store.isAway) throw away();
    if (this.#has("appends ephemeral events")) await store.append(keys, text, undefined);
    // With this defect it overtakes what was appended before.
    if (this.#has("reports ephemeral events before their time"))
      this.#listener.onEphemeral?.(keys, new TextEncoder().encode(text));
    else for (const session of store.sessions) session.receiveEphemeral(keys, text);
    await later();
  }

  async append(
    keys: readonly string[],
    text: string,
    idempotencyKey?: string,
    recipient?: string,
  ): Promise<AppendResult> {
    const store = this.#store;
    if (store.isAway) {
      if (this.#has("appends later what it refused"))
        this.#refused.push(() => void store.append(keys, text, idempotencyKey));
      while (this.#has("waits while it is away") && store.isAway && !this.isClosed) await later();
      if (store.isAway) throw away();
    }
    if (recipient !== undefined && !store.isKnownClient(recipient, this))
      throw new BrokerError("unknown-client", "Event refused: no process has or had this client.");
    const storedKeys = this.#has("ignores case") ? keys.map((key) => key.toLowerCase()) : keys;
    const appended = await store.append(storedKeys, text, this.#storedKey(idempotencyKey, text));
    const { losesReply } = store;
    store.losesReply = false;
    await later();
    if (losesReply) {
      if (this.#has("retries an unknown outcome")) return store.append(storedKeys, text, undefined);
      throw this.#has("reports an unknown outcome as refused") ? away() : unknown();
    }
    const answer = { ...appended, epoch: this.#epoch() };
    const before = this.#lastSeq;
    this.#lastSeq = answer.seq;
    if (this.#has("repeats a position") && answer.seq % 7 === 0) return { ...answer, seq: before || answer.seq - 1 };
    return answer;
  }

  #storedKey(idempotencyKey: string | undefined, text: string): string | undefined {
    if (idempotencyKey === undefined || this.#has("forgets keys")) return undefined;
    if (this.#has("knows the keys of one process only")) return `${this.#index} ${idempotencyKey}`;
    if (this.#has("accepts another event with the same key")) return `${idempotencyKey} ${text}`;
    return this.#has("confuses similar keys") ? idempotencyKey.trim().toLowerCase() : idempotencyKey;
  }

  #epoch(): string {
    if (this.#has("has an epoch for each process")) return `${this.#store.log.epoch}${this.#index}`;
    if (this.#has("has an epoch without a wire form")) return `${this.#store.log.epoch}_${this.#index}`;
    if (this.#has("has one epoch for all logs")) return "always";
    if (this.#has("keeps its epoch")) return this.#store.firstEpoch;
    return this.#store.log.epoch;
  }

  async subscribe(keys: readonly string[]): Promise<void> {
    if (this.#store.isAway) throw away();
    if (this.#has("answers a read from before the subscribe"))
      for (const key of keys) this.#oldPages.set(key, readPage(this.#store.log, [key], 0));
    const take = (): void => {
      const from = this.#store.log.head;
      // Subscribed channels must be complete up to here: otherwise older events of this channel would be reported with theirs.
      this.#catchUp();
      for (const key of keys) {
        const known = this.#keys.get(key);
        if (known && this.#has("does not count subscriptions")) continue;
        if (known) known.count++;
        else this.#keys.set(key, { count: 1, from });
      }
    };
    if (this.#has("subscribes too early")) setTimeout(take, DELAY_MS);
    else {
      await later();
      take();
    }
  }

  unsubscribe(keys: readonly string[]): void {
    for (const key of keys) {
      const known = this.#keys.get(key);
      if (known && --known.count === 0) this.#keys.delete(key);
    }
  }

  async read(keys: readonly string[], after: number): Promise<ReplayPage> {
    if (this.#store.isAway) throw away();
    const old = keys.length === 1 && this.#oldPages.get(keys[0] as string);
    const page = old && after === 0 ? old : this.#falsify(readPage(this.#store.log, keys, after), keys);
    await later();
    return page;
  }

  #falsify(page: ReplayPage, keys: readonly string[]): ReplayPage {
    const { records, droppedThrough } = page;
    switch (this.#store.defect) {
      case "reads an old state":
        return { ...page, records: records.slice(0, -1) };
      case "reads less than it says":
        return { ...page, through: this.#store.log.head };
      case "reads an event once for each channel":
        return { ...page, records: records.flatMap((record) => record.keys.map(() => record)) };
      case "drops for all channels what one channel drops":
        return {
          ...page,
          records: records.filter((record) => record.keys.length < 2),
          droppedThrough: droppedThrough.map(() => records[0]?.seq ?? 0),
        };
      case "reads another text":
        return { ...page, records: records.map((record) => ({ ...record, text: record.text.trimEnd() })) };
      case "counts what it reads as dropped":
        return { ...page, droppedThrough: droppedThrough.map(() => records[0]?.seq ?? 0) };
      case "counts unknown channels as dropped":
        return {
          ...page,
          droppedThrough: droppedThrough.map((seq, index) =>
            this.#store.log.find(keys[index] as string) ? seq : this.#store.log.head,
          ),
        };
      case "hides what was dropped":
        return { ...page, droppedThrough: droppedThrough.map(() => 0) };
      case "hides what an empty channel dropped":
        return records.length > 0 ? page : { ...page, droppedThrough: droppedThrough.map(() => 0) };
      case "reports too much as dropped":
        return { ...page, droppedThrough: droppedThrough.map(() => Math.max(...droppedThrough)) };
      default:
        return page;
    }
  }

  close(): void {
    this.isClosed = true;
    if (!this.#has("calls a closed listener")) clearInterval(this.#poller);
    this.#store.onSessionClosed();
  }

  /** Stops for good, whatever the defect. */
  stop(): void {
    this.isClosed = true;
    clearInterval(this.#poller);
  }
}
