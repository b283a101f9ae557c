import type { AppendResult, Engine, EngineListener, EngineSession, ReplayPage } from "../../engine/engine.ts";
import type { Entry } from "../../log/channel-log.ts";
import type { Log } from "../../log/log.ts";
import { check, equal, inTime, persist, until } from "./expectation.ts";
import { pageOf, type Sent, unpack } from "./page.ts";

/** An event as a follower was told of it. */
export interface Seen {
  readonly id: string | undefined;
  readonly seq: number;
  readonly keys: readonly string[];
  readonly text: string;
}

/** What a follower was told that it missed, and can read. */
interface Stretch {
  readonly missed: string;
  readonly after: number;
  readonly through: number;
}

/** What an append came to. */
export interface Answer extends AppendResult, Sent {}

/** The text of an event with this data. */
const textOf = (data: string): string => `data: ${data}\n\n`;
/** And back. */
export const dataOf = ({ text }: Pick<Sent, "text">): string => text.slice("data: ".length, -2);

const isSeen = (told: Seen | Stretch): told is Seen => "text" in told;

/** A process: it follows the log as a broker does, writes down what it is told, reads what it is told that it missed, and appends. */
export class Probe implements EngineListener {
  /** Everything it was told, as it came. */
  readonly #told: (Seen | Stretch)[] = [];
  /** What it read of what it had missed. */
  readonly #read: Seen[] = [];
  readonly #keys = new Set<string>();
  readonly #patience: number;
  readonly #session: EngineSession;
  #log: Log | undefined;
  #reading = 0;
  #failure: unknown;
  #isOpen = true;

  constructor(engine: Engine, patience: number) {
    this.#patience = patience;
    this.#session = engine.open(this);
    this.#log ??= this.#session.log;
  }

  get position(): number {
    return this.#log?.head ?? 0;
  }

  onAppended(entry: Entry): void {
    this.#told.push({ seq: entry.seq, keys: entry.keys, ...unpack(entry) });
  }

  onOverrun(): void {
    this.#failure ??= new Error("A follower that hands on at once: expected never to be overrun, saw that it was.");
  }

  onLogReplaced(log: Log): void {
    this.#log = log;
    for (const key of this.#keys) {
      const dropped = log.find(key)?.droppedThrough ?? log.forgottenThrough;
      if (dropped > 0) this.onMissed(key, 0, dropped);
    }
  }

  onMissed(key: string, after: number, through: number): void {
    this.#told.push({ missed: key, after, through });
    void this.#make(key, after, through);
  }

  /** Reads what was missed, as often as it takes. */
  async #make(key: string, after: number, through: number): Promise<void> {
    const log = this.#log;
    this.#reading++;
    for (let cursor = after; cursor < through && this.#isOpen && log === this.#log; ) {
      await until(this.#patience, "reading what was missed", "a page", async () => {
        try {
          const page = await this.read([key], cursor);
          if (page.through <= cursor) return false;
          for (const { seq, keys, text } of page.records)
            if (seq <= through) this.#read.push({ id: `${page.epoch}-${seq}`, seq, keys, text });
          cursor = page.through;
          return true;
        } catch {
          // It is away; a reader tries again.
          return !this.#isOpen;
        }
      }).catch((error: unknown) => {
        this.#failure ??= error;
        cursor = through;
      });
    }
    this.#reading--;
  }

  get isUp(): boolean {
    return this.#session.state !== "down";
  }

  /** Waits until the engine can append. */
  async ready(): Promise<void> {
    await until(this.#patience, "the engine", "to be up", () => this.isUp);
  }

  /** Calls the engine before it returns. Rejects with what the engine rejects with. */
  async append(keys: readonly string[], data: string, nonce?: string): Promise<Answer> {
    const text = textOf(data);
    const appended = await inTime(this.#patience, `appending ${data}`, this.#session.append(keys, text, nonce));
    return { epoch: appended.epoch, seq: appended.seq, repeated: appended.repeated, keys, text };
  }

  /** Appends as soon as the engine takes it. */
  persist(keys: readonly string[], data: string, nonce?: string): Promise<Answer> {
    return persist(this.#patience, `appending ${data}`, () => this.append(keys, data, nonce));
  }

  async subscribe(...keys: readonly string[]): Promise<void> {
    await inTime(this.#patience, `subscribing to ${JSON.stringify(keys)}`, this.#session.subscribe?.(keys));
    for (const key of keys) this.#keys.add(key);
  }

  unsubscribe(...keys: readonly string[]): void {
    this.#session.unsubscribe?.(keys);
  }

  /** What the log has of these channels after a position. */
  async read(keys: readonly string[], after: number): Promise<ReplayPage> {
    const session = this.#session;
    if (!session.read) return pageOf(session.log, keys, after);
    return inTime(this.#patience, `reading ${JSON.stringify(keys)}`, session.read(keys, after));
  }

  /** The events of these channels that it was told of itself, as they came. */
  came(...keys: readonly string[]): Seen[] {
    return this.#told.filter(isSeen).filter((event) => event.keys.some((key) => keys.includes(key)));
  }

  data(...keys: readonly string[]): string[] {
    return this.came(...keys).map(dataOf);
  }

  /** The data of what it has of these channels, in order: what it was told of, and what it read because it was told that it missed it. */
  has(...keys: readonly string[]): string[] {
    const came = this.came(...keys);
    const known = new Set(came.map(({ id }) => id));
    for (const event of this.#read) {
      if (known.has(event.id) || !event.keys.some((key) => keys.includes(key))) continue;
      known.add(event.id);
      came.push(event);
    }
    return came.sort((a, b) => a.seq - b.seq).map(dataOf);
  }

  /** Those of these events, all of its channels, that the head of its log has passed and it was told nothing of. */
  passed(sent: readonly Sent[]): Sent[] {
    const isTold = ({ seq }: Sent): boolean =>
      this.#told.some((told) => (isSeen(told) ? told.seq === seq : seq > told.after && seq <= told.through));
    return sent.filter((event) => event.seq <= this.position && !isTold(event));
  }

  /** Waits until it has an event with this data, and everything else that it was told of. */
  async hears(data: string): Promise<Seen> {
    const text = textOf(data);
    const find = (): Seen | undefined =>
      [...this.#told.filter(isSeen), ...this.#read].find((event) => event.text === text);
    return until(
      this.#patience,
      "a follower",
      `to be told of ${data}`,
      () => {
        if (this.#failure !== undefined) throw this.#failure;
        return this.#reading === 0 && find();
      },
      () => this.#told.map((told) => (isSeen(told) ? told.text : told)),
    );
  }

  /**
   * Checks that what came of these channels came in the order of positions, each once, and none of it before the follower was told of
   * everything before it: had it, or knew that it missed it. All of `sent`, in order, is of one epoch and was appended after it subscribed.
   */
  cameInTurn(sent: readonly Sent[], ...keys: readonly string[]): void {
    const open = new Set(sent.filter((event) => event.keys.some((key) => keys.includes(key))));
    let last = 0;
    for (const told of this.#told) {
      if (isSeen(told)) {
        if (!told.keys.some((key) => keys.includes(key))) continue;
        check(told.seq > last, "the next position that a follower is told of", `one over ${last}`, told.seq);
        last = told.seq;
      }
      for (const event of open) {
        if (
          isSeen(told)
            ? event.seq === told.seq
            : event.seq > told.after && event.seq <= told.through && event.keys.includes(told.missed)
        )
          open.delete(event);
      }
      if (!isSeen(told)) continue;
      const behind = [...open].filter(
        ({ seq, keys: of }) => seq < told.seq && of.some((key) => told.keys.includes(key)),
      );
      equal(
        `events that a follower does not know of when it is told of ${told.seq}`,
        behind.map(({ seq }) => seq),
        [],
      );
    }
  }

  close(): void {
    this.#isOpen = false;
    this.#session.close();
  }
}
