import type { AppendResult, PeerCommand, Presence, ReplayPage } from "../../../src/engine/engine.ts";
import { BrokerError } from "../../../src/index.ts";
import type { MaxReplay } from "../../../src/log/resume.ts";
import type {
  FeedEvent,
  SharedHistoryBounds,
  SharedLogListener,
  SharedLogSession,
} from "../../../src/shared-log/shared-log.ts";
import type { MemoryStore, Seen } from "./memory-shared-log.ts";

const down = (): BrokerError => new BrokerError("engine-down", "Refused: the store is away.");
const unknown = (): BrokerError => new BrokerError("publish-outcome-unknown", "The answer was lost.");

/** What is on its way. */
class Line {
  /** How long each takes. */
  lag = 0;
  /** Each takes at most that long, so that later ones may come first. */
  isLoose = false;
  readonly #store: MemoryStore;
  #tasks: { readonly due: number; readonly task: () => void }[] = [];

  constructor(store: MemoryStore) {
    this.#store = store;
  }

  push(task: () => void): void {
    const lag = this.isLoose ? Math.floor(Math.random() * (this.lag + 1)) : this.lag;
    const due = Math.max(this.#store.now + lag, this.isLoose ? 0 : (this.#tasks.at(-1)?.due ?? 0));
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

/** A command that was not answered yet. */
interface Asked {
  isDone: boolean;
  readonly isAppend: boolean;
  readonly reject: (error: unknown) => void;
}

/** How long what is on its way takes. */
export interface Delays {
  readonly requests: number;
  readonly answers: number;
  readonly feed: number;
  readonly isLoose: boolean;
}

/** What one process has of the store, and what may happen to it. */
export class MemorySession implements SharedLogSession {
  readonly lease = 20_000;
  /** Messages that vanish without a sign, counted down; `Infinity` until the feed is made anew, marks included. */
  swallows = 0;
  /** The next append happens, and its answer is lost. */
  losesAnswer = false;
  /** Commands that are refused, counted down. */
  refusals = 0;
  /** How often the feed was made anew on demand. */
  renewals = 0;
  /** Each call of `subscribe` and `unsubscribe`, by its keys. */
  readonly wishes: { readonly isFor: boolean; readonly keys: readonly string[] }[] = [];
  readonly subscribed: Set<string> = new Set();
  presences: readonly Presence[] = [];
  isClosed = false;

  readonly #store: MemoryStore;
  readonly #listener: SharedLogListener;
  readonly #requests: Line;
  readonly #answers: Line;
  readonly #feed: Line;
  readonly #asked = new Set<Asked>();
  #hasCommands = false;
  #hasFeed = false;
  #isHeld = false;

  constructor(store: MemoryStore, listener: SharedLogListener) {
    this.#store = store;
    this.#listener = listener;
    this.#requests = new Line(store);
    this.#answers = new Line(store);
    this.#feed = new Line(store);
    if (store.isAway) return;
    queueMicrotask(() => {
      this.commands(true);
      this.feed(true);
    });
  }

  // What happens to it.

  /** How long each of these takes from here on; 0 is the next microtask. With `isLoose` answers come in any order. */
  delay({ requests = 0, answers = 0, feed = 0, isLoose = false }: Partial<Delays> = {}): void {
    this.#requests.lag = requests;
    this.#answers.lag = answers;
    this.#answers.isLoose = isLoose;
    this.#feed.lag = feed;
  }

  turn(): void {
    this.#requests.run();
    this.#answers.run();
    this.#feed.run();
  }

  feed(isThere: boolean): void {
    this.#isHeld = !isThere;
    if (this.isClosed || this.#hasFeed === isThere) return;
    this.#hasFeed = isThere;
    this.#feed.clear();
    this.subscribed.clear();
    this.swallows = 0;
    this.#listener.onFeed(isThere);
  }

  commands(isThere: boolean): void {
    if (this.isClosed || this.#hasCommands === isThere) return;
    this.#hasCommands = isThere;
    if (!isThere) this.#refuse();
    this.#listener.onCommands(isThere);
  }

  tell(message: FeedEvent): void {
    const isFor = message.keys.some((key) => key.startsWith("@") || this.subscribed.has(key));
    if (this.#hasFeed && isFor) this.#feed.push(() => this.#deliver(() => this.#listener.onEvent(message), true));
  }

  obey(order: PeerCommand): void {
    if (this.#hasFeed) this.#feed.push(() => this.#deliver(() => this.#listener.onCommand(order)));
  }

  #deliver(task: () => void, isMessage = false): void {
    const isSwallowed = this.swallows === Infinity || (isMessage && this.swallows > 0);
    if (isSwallowed) this.swallows--;
    else task();
  }

  #refuse(): void {
    const asked = [...this.#asked];
    this.#asked.clear();
    for (const { isDone, isAppend, reject } of asked) reject(isDone && isAppend ? unknown() : down());
  }

  // What is asked of it.

  #ask<T>(what: () => T, isAppend = false): Promise<T> {
    if (!this.#hasCommands || this.isClosed) return Promise.reject(down());
    if (this.refusals > 0) {
      this.refusals--;
      return Promise.reject(down());
    }
    return new Promise((resolve, reject) => {
      const asked: Asked = { isDone: false, isAppend, reject };
      this.#asked.add(asked);
      this.#requests.push(() => {
        if (!this.#asked.has(asked)) return;
        asked.isDone = true;
        let answer: () => void;
        try {
          const value = what();
          answer = () => resolve(value);
        } catch (error) {
          answer = () => reject(error);
        }
        this.#answers.push(() => this.#asked.delete(asked) && answer());
      });
    });
  }

  append(
    keys: readonly string[],
    text: string,
    seen: Seen,
    nonce: string | undefined,
    recipient: string | undefined,
  ): Promise<AppendResult> {
    const store = this.#store;
    return this.#ask(() => {
      const print = `${keys.join("\n")}\n${text}`;
      const known = nonce === undefined ? undefined : store.nonces.get(nonce);
      if (known && known.print !== print)
        throw new BrokerError("key-reused", "Event refused: its key was used before.");
      const isThere = ({ presences }: MemorySession): boolean =>
        presences.some(({ clientId }) => clientId === recipient);
      if (recipient !== undefined && !store.lingering.has(recipient) && !store.sessions.some(isThere))
        throw new BrokerError("unknown-client", "Event refused: there is no such client.");
      const { epoch, seq } = known ?? store.append(seen, keys, text);
      if (nonce !== undefined) store.nonces.set(nonce, { print, epoch, seq });
      if (this.losesAnswer) {
        this.losesAnswer = false;
        throw unknown();
      }
      return { epoch, seq, repeated: known !== undefined };
    }, true);
  }

  subscribe(keys: readonly string[]): Promise<void> {
    this.wishes.push({ isFor: true, keys });
    return this.#ask(() => {
      if (!this.#hasFeed) throw down();
      for (const key of keys) this.subscribed.add(key);
    });
  }

  unsubscribe(keys: readonly string[]): Promise<void> {
    this.wishes.push({ isFor: false, keys });
    return this.#ask(() => {
      for (const key of keys) this.subscribed.delete(key);
    });
  }

  requestCheckpoint(token: number, keys: readonly string[], seen: Seen): Promise<void> {
    return this.#ask(() => {
      const log = this.#store.proved(seen);
      const mark = { epoch: log.epoch, head: log.head, token, last: keys.map((key) => log.lastOf(key)) };
      if (this.#hasFeed) this.#feed.push(() => this.#deliver(() => this.#listener.onCheckpoint(mark)));
    });
  }

  read(epoch: string, keys: readonly string[], after: number): Promise<ReplayPage> {
    this.#store.reads.push([...keys]);
    return this.#ask(() => {
      const { log, page } = this.#store;
      if (log?.epoch === epoch) return log.read(keys, after, page);
      return { epoch: log?.epoch ?? "", records: [], through: 0, droppedThrough: keys.map(() => 0) };
    });
  }

  historyBounds(epoch: string, keys: readonly string[], from: number, max: MaxReplay): Promise<SharedHistoryBounds> {
    return this.#ask(() => {
      const { log } = this.#store;
      if (log?.epoch === epoch) return log.survey(keys, from, max);
      const channels = keys.map(() => ({ droppedThrough: 0, oldest: undefined, next: undefined }));
      return { epoch: log?.epoch ?? "", head: log?.head ?? 0, floor: 0, channels };
    });
  }

  renewFeed(): void {
    this.renewals++;
    if (this.#isHeld) return;
    this.feed(false);
    queueMicrotask(() => this.feed(true));
  }

  enter(
    presences: readonly Presence[],
    rule: "allow" | "reject" | "replace",
  ): Promise<readonly ("entered" | "barred" | "taken")[]> {
    const { sessions, barred } = this.#store;
    return this.#ask(() =>
      presences.map((presence) => {
        const { clientId, subject } = presence;
        const isSame = (other: Presence): boolean => other.clientId === clientId && other.subject === subject;
        if (barred.has(clientId)) return "barred";
        if (rule === "reject" && sessions.some((session) => session.presences.some(isSame))) return "taken";
        this.presences = [...this.presences, presence];
        if (rule === "replace") this.#tellOthers({ type: "replace", clientId, subject, barFor: 0 });
        return "entered";
      }),
    );
  }

  leave({ clientId, subject }: Presence, linger: number): Promise<void> {
    return this.#ask(() => {
      const gone = this.presences.find((each) => each.clientId === clientId && each.subject === subject);
      this.presences = this.presences.filter((each) => each !== gone);
      if (gone && linger > 0) this.#store.lingering.add(clientId, linger);
    });
  }

  linger(ids: ReadonlyMap<string, number>): Promise<void> {
    return this.#ask(() => {
      for (const [id, ms] of ids) if (ms > 0) this.#store.lingering.add(id, ms);
    });
  }

  renew(presences: readonly Presence[]): Promise<void> {
    return this.#ask(() => {
      this.presences = presences;
    });
  }

  isBarred(clientId: string): Promise<boolean> {
    return this.#ask(() => this.#store.barred.has(clientId));
  }

  disconnect(clientId: string, barFor: number): Promise<number> {
    return this.#ask(() => {
      if (barFor > 0) this.#store.barred.add(clientId, barFor);
      this.#tellOthers({ type: "disconnect", clientId, subject: undefined, barFor });
      const others = this.#store.sessions.filter((session) => session !== this);
      return others.flatMap((session) => session.presences.filter((each) => each.clientId === clientId)).length;
    });
  }

  #tellOthers(order: PeerCommand): void {
    for (const session of this.#store.sessions) if (session !== this) session.obey(order);
  }

  close(linger: number): void {
    if (linger > 0) for (const { clientId } of this.presences) this.#store.lingering.add(clientId, linger);
    this.presences = [];
    this.isClosed = true;
    this.#hasFeed = false;
    this.#feed.clear();
    this.#refuse();
  }
}
