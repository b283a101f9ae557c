import type { PeerCommand, PresenceStore, ReplayPage } from "../../../src/engine/engine.ts";
import {
  type AppendResult,
  BrokerError,
  type EngineListener,
  type EngineSession,
  type Entry,
  type Log,
} from "../../../src/index.ts";
import { pageOf } from "../../../src/testing/support/page.ts";
import type { DistantLog } from "./asynchronous-log.ts";

/** What an engine can be dishonest about; each is one thing that it does wrong. */
export type Lie =
  | "drops the last message"
  | "drops a message"
  | "does not heal a feed that was cut"
  | "does not look behind a message"
  | "forgets its subscriptions with its feed"
  | "stays with a feed that is dead"
  | "says too late what was missed"
  | "shows what it has not told"
  | "acknowledges early"
  | "repeats an id"
  | "writes its epoch as it likes"
  | "loses the order"
  | "tells each process in its own order"
  | "tells twice"
  | "changes the text"
  | "ignores case"
  | "answers a read from before the subscribe"
  | "reads what is old"
  | "says that a page reaches further"
  | "is not sure of what it does not know"
  | "reads an event once for each channel"
  | "drops for all what one channel drops"
  | "hides what was dropped"
  | "hides what was dropped of what is empty"
  | "says that too much was dropped"
  | "keeps one event less"
  | "keeps everything"
  | "subscribes too early"
  | "subscribes once"
  | "forgets nonces"
  | "knows nonces of one process"
  | "takes any event for the nonce's"
  | "takes one nonce for all"
  | "tries again what is unknown"
  | "says that what is unknown was refused"
  | "says nothing when it is away"
  | "waits while it is away"
  | "appends later what it refused"
  | "forgets its subscriptions when it was away"
  | "keeps its epoch"
  | "tells one that has left"
  | "leaves with the first who does"
  | "loses its log with its last process"
  | "says nothing of its new log"
  | "keeps its clients to itself"
  | "takes anybody for a client"
  | "has an epoch for each process"
  | "has one epoch for all logs";

/** Runs in a later turn: what comes over a wire does. */
const later = (ms = 0): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const LATE = 30;
/** Milliseconds between two looks at the head. */
const ECHO = 5;

const away = (): BrokerError => new BrokerError("engine-down", "Event refused: the log is away.");
const unknown = (): BrokerError => new BrokerError("publish-outcome-unknown", "The answer was lost.");

/** What one process has of the store: honest but for the lie. */
export class Link implements EngineSession {
  readonly presence: PresenceStore;
  swallows = false;
  readonly #store: DistantLog;
  readonly #follower: EngineListener;
  readonly #index: number;
  /** How often each channel is subscribed to, and from which position on. */
  readonly #keys = new Map<string, { count: number; from: number }>();
  #log: Log;
  /** That of all, with the head where this process is. */
  log: Log;
  /** Everything up to here was told. */
  #position: number;
  isClosed = false;
  #isCut = false;
  #lastSeq = 0;
  readonly #late: (() => void)[] = [];
  readonly #pages = new Map<string, ReplayPage>();
  readonly #echo: ReturnType<typeof setInterval>;

  constructor(store: DistantLog, follower: EngineListener, index: number) {
    this.#store = store;
    this.#follower = follower;
    this.#index = index;
    this.#log = store.log;
    this.log = this.#upToHere(store.log);
    this.#position = store.log.head;
    this.presence = store.presencesOf(this);
    this.#echo = setInterval(() => this.#look(), ECHO);
  }

  get state(): "up" | "down" {
    return this.#store.isAway && !this.#lies("says nothing when it is away") ? "down" : "up";
  }

  #lies(lie: Lie): boolean {
    return this.#store.lie === lie;
  }

  // What it is told.

  /** A message of the feed. */
  receive(entry: Entry): void {
    this.#renew();
    if (this.swallows || this.#isCut || (this.isClosed && !this.#lies("tells one that has left"))) return;
    if (this.#lies("drops a message") && entry.seq % 5 === 0) {
      this.#position = entry.seq;
      return;
    }
    if (this.#lies("does not look behind a message")) this.#position = Math.max(this.#position, entry.seq - 1);
    if (this.#lies("acknowledges early")) setTimeout(() => this.#catchUp(), LATE);
    else this.#catchUp(entry);
  }

  /** What another process wants. */
  obey(order: PeerCommand): void {
    this.#follower.onCommand?.(order);
  }

  /** Looks whether something was appended that did not come. */
  #look(): void {
    if (this.#store.isAway) return;
    if (this.#isCut) {
      this.#isCut = false;
      if (this.#lies("does not heal a feed that was cut")) this.#position = this.#store.log.head;
    }
    if (this.#lies("stays with a feed that is dead") && this.swallows) return;
    if (this.#lies("acknowledges early")) return;
    if (this.#lies("drops the last message") || this.#lies("does not look behind a message")) return;
    // It is for the message to show it.
    if (this.#lies("says too late what was missed")) return;
    this.#renew();
    this.#catchUp();
  }

  /** Begins again with the store. */
  #renew(): void {
    if (this.#log === this.#store.log) return;
    this.#log = this.#store.log;
    this.log = this.#upToHere(this.#log);
    this.#position = 0;
    for (const key of this.#keys.values()) key.from = 0;
    if (!this.#lies("says nothing of its new log")) this.#follower.onLogReplaced?.(this.log);
  }

  #upToHere(log: Log): Log {
    if (this.#lies("shows what it has not told")) return log;
    return new Proxy(log, {
      get: (_, name: keyof Log) => {
        if (name === "head") return Math.min(this.#position, log.head);
        const value: unknown = log[name];
        return typeof value === "function" ? value.bind(log) : value;
      },
    });
  }

  /** Tells everything up to the head, in order; if it has to be read, no more than the event of the message that has come. */
  #catchUp(message?: Entry): void {
    if (this.isClosed && !this.#lies("tells one that has left")) return;
    const { log } = this.#store;
    const entries: Entry[] = [];
    while (this.#position < log.head) {
      const entry = this.#next();
      this.#position = entry?.seq ?? log.head;
      if (entry) entries.push(entry);
    }
    const isLate = this.#lies("says too late what was missed");
    if (isLate && message && entries.includes(message)) this.#tell(message);
    for (const entry of entries) {
      if (!this.#store.hasItRead && !isLate) this.#tell(entry);
      else if (entry !== message)
        for (const key of entry.keys) if (this.#keys.has(key)) this.#follower.onMissed?.(key, entry.seq - 1, entry.seq);
    }
    if (this.#store.hasItRead && message && entries.includes(message)) this.#tell(message);
  }

  #next(): Entry | undefined {
    let first: Entry | undefined;
    for (const [key, { from }] of this.#keys) {
      const channel = this.#store.log.find(key);
      const entry = channel?.at(channel.indexAfter(Math.max(this.#position, from)));
      if (entry && !(first && first.seq < entry.seq)) first = entry;
    }
    return first;
  }

  #tell(entry: Entry): void {
    const { onAppended } = this.#follower;
    const tell = (): void => onAppended.call(this.#follower, entry);
    const holds =
      this.#lies("loses the order") || (this.#lies("tells each process in its own order") && this.#index === 1);
    if (holds && entry.seq % 3 === 0) {
      this.#late.push(tell);
      setTimeout(() => this.#late.shift()?.(), LATE);
      return;
    }
    if (this.#lies("changes the text")) {
      const bytes = entry.bytes.map((byte) => (byte === 9 ? 32 : byte));
      onAppended.call(this.#follower, { ...entry, bytes });
      return;
    }
    tell();
    this.#late.shift()?.();
    if (this.#lies("tells twice") && entry.keys.filter((key) => this.#keys.has(key)).length > 1) tell();
  }

  cut(): void {
    this.#isCut = true;
    if (this.#lies("forgets its subscriptions with its feed")) this.#keys.clear();
  }

  returned(): void {
    if (this.#lies("forgets its subscriptions when it was away")) this.#keys.clear();
    for (const append of this.#refused.splice(0)) append();
  }

  // What it is asked.

  readonly #refused: (() => void)[] = [];

  async append(keys: readonly string[], text: string, nonce?: string, recipient?: string): Promise<AppendResult> {
    const store = this.#store;
    if (store.isAway) {
      if (this.#lies("appends later what it refused")) this.#refused.push(() => void store.append(keys, text, nonce));
      while (this.#lies("waits while it is away") && store.isAway && !this.isClosed) await later();
      if (store.isAway) throw away();
    }
    if (recipient !== undefined && !store.knows(recipient, this))
      throw new BrokerError("unknown-client", "Event refused: no process has or had this client.");
    const names = this.#lies("ignores case") ? keys.map((key) => key.toLowerCase()) : keys;
    const appended = await store.append(names, text, this.#nonce(nonce, text));
    const losesReply = store.losesReply;
    store.losesReply = false;
    await later();
    if (losesReply) {
      if (this.#lies("tries again what is unknown")) return store.append(names, text, undefined);
      throw this.#lies("says that what is unknown was refused") ? away() : unknown();
    }
    const answer = { ...appended, epoch: this.#epoch() };
    const before = this.#lastSeq;
    this.#lastSeq = answer.seq;
    if (this.#lies("repeats an id") && answer.seq % 7 === 0) return { ...answer, seq: before || answer.seq - 1 };
    return answer;
  }

  #nonce(nonce: string | undefined, text: string): string | undefined {
    if (nonce === undefined || this.#lies("forgets nonces")) return undefined;
    if (this.#lies("knows nonces of one process")) return `${this.#index} ${nonce}`;
    if (this.#lies("takes any event for the nonce's")) return `${nonce} ${text}`;
    return this.#lies("takes one nonce for all") ? nonce.trim().toLowerCase() : nonce;
  }

  #epoch(): string {
    if (this.#lies("has an epoch for each process")) return `${this.#store.log.epoch}${this.#index}`;
    if (this.#lies("writes its epoch as it likes")) return `${this.#store.log.epoch}_${this.#index}`;
    if (this.#lies("has one epoch for all logs")) return "always";
    if (this.#lies("keeps its epoch")) return this.#store.firstEpoch;
    return this.#store.log.epoch;
  }

  async subscribe(keys: readonly string[]): Promise<void> {
    if (this.#store.isAway) throw away();
    if (this.#lies("answers a read from before the subscribe"))
      for (const key of keys) this.#pages.set(key, this.#page([key], 0));
    const take = (): void => {
      const from = this.#store.log.head;
      // What it follows already has to have been told up to here, or it would be told of this channel what was before.
      this.#catchUp();
      for (const key of keys) {
        const known = this.#keys.get(key);
        if (known && this.#lies("subscribes once")) continue;
        if (known) known.count++;
        else this.#keys.set(key, { count: 1, from });
      }
    };
    if (this.#lies("subscribes too early")) setTimeout(take, LATE);
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

  #page(keys: readonly string[], after: number): ReplayPage {
    return pageOf(this.#store.log, keys, after);
  }

  async read(keys: readonly string[], after: number): Promise<ReplayPage> {
    if (this.#store.isAway) throw away();
    const old = keys.length === 1 && this.#pages.get(keys[0] as string);
    const page = old && after === 0 ? old : this.#falsify(this.#page(keys, after), keys);
    await later();
    return page;
  }

  #falsify(page: ReplayPage, keys: readonly string[]): ReplayPage {
    const { records, droppedThrough } = page;
    switch (this.#store.lie) {
      case "reads what is old":
        return { ...page, records: records.slice(0, -1) };
      case "says that a page reaches further":
        return { ...page, through: this.#store.log.head };
      case "reads an event once for each channel":
        return { ...page, records: records.flatMap((record) => record.keys.map(() => record)) };
      case "drops for all what one channel drops":
        return {
          ...page,
          records: records.filter((record) => record.keys.length < 2),
          droppedThrough: droppedThrough.map(() => records[0]?.seq ?? 0),
        };
      case "is not sure of what it does not know":
        return {
          ...page,
          droppedThrough: droppedThrough.map((seq, index) =>
            this.#store.log.find(keys[index] as string) ? seq : this.#store.log.head,
          ),
        };
      case "hides what was dropped":
        return { ...page, droppedThrough: droppedThrough.map(() => 0) };
      case "hides what was dropped of what is empty":
        return records.length > 0 ? page : { ...page, droppedThrough: droppedThrough.map(() => 0) };
      case "says that too much was dropped":
        return { ...page, droppedThrough: droppedThrough.map(() => Math.max(...droppedThrough)) };
      default:
        return page;
    }
  }

  close(): void {
    this.isClosed = true;
    if (!this.#lies("tells one that has left")) clearInterval(this.#echo);
    this.#store.left();
  }

  stop(): void {
    this.isClosed = true;
    clearInterval(this.#echo);
  }
}
