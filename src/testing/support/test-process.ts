// Uses an engine as the broker of one process does: subscribes, appends, and records every call that the engine makes.
import type { AppendResult, Engine, EngineListener, EngineSession, ReplayPage } from "../../engine/engine.ts";
import { readPage } from "../../engine/read-log.ts";
import { decode, splitId } from "../../event/sse-format.ts";
import type { Entry } from "../../log/channel-log.ts";
import type { Log } from "../../log/log.ts";
import type { AppendedEvent } from "./check-page.ts";
import { check, equal, retryWhileDown, until, withTimeout } from "./expectation.ts";

/** An event that the engine reported with `onAppended`, or that was read because it was missed. */
export interface ReceivedEntry {
  readonly id: string;
  readonly seq: number;
  readonly keys: readonly string[];
  readonly text: string;
}

/** A range that the engine reported with `onMissed`. */
interface MissedRange {
  readonly key: string;
  readonly after: number;
  readonly through: number;
}

/** An event, and the answer to its append. */
export interface AppendAnswer extends AppendResult, AppendedEvent {}

const textOf = (data: string): string => `data: ${data}\n\n`;

/** Returns the data of an event whose text is of `TestProcess.append`. */
export const dataOf = ({ text }: Pick<AppendedEvent, "text">): string => text.slice("data: ".length, -2);

const isEntry = (report: ReceivedEntry | MissedRange): report is ReceivedEntry => "text" in report;

/** Whether a report is about an event: it is that event, or it says that the event's channel missed it. */
const covers = (report: ReceivedEntry | MissedRange, { seq, keys }: AppendedEvent): boolean =>
  isEntry(report)
    ? report.seq === seq
    : seq > report.after && seq <= report.through && keys.some((key) => key === report.key);

/** A listener of an engine. It has delivered each event as soon as it is reported, and reads what it missed. */
export class TestProcess implements EngineListener {
  /** Every report of the engine, in order. */
  readonly #reports: (ReceivedEntry | MissedRange)[] = [];
  /** Ephemeral events, each with the data of the last event that was reported before it. */
  readonly ephemeral: { readonly data: string; readonly before: string | undefined }[] = [];
  /** Events of missed ranges. */
  readonly #readEntries: ReceivedEntry[] = [];
  readonly #keys = new Set<string>();
  readonly #timeout: number;
  readonly #session: EngineSession;
  #log: Log | undefined;
  /** Number of missed ranges that are being read. */
  #reading = 0;
  #failure: unknown;
  #isOpen = true;

  constructor(engine: Engine, timeout: number) {
    this.#timeout = timeout;
    this.#session = engine.open(this);
    this.#log ??= this.#session.log;
  }

  get position(): number {
    return this.#log?.head ?? 0;
  }

  onAppended(entry: Entry): void {
    this.#reports.push({ seq: entry.seq, keys: entry.keys, ...splitId(decode(entry.bytes)) });
  }

  onEphemeral(_keys: readonly string[], bytes: Uint8Array): void {
    const last = this.#reports.findLast(isEntry);
    this.ephemeral.push({ data: dataOf({ text: decode(bytes) }), before: last && dataOf(last) });
  }

  onOverrun(): void {
    this.#failure ??= new Error("A listener that delivers at once: expected never to be overrun, saw that it was.");
  }

  onLogReplaced(log: Log): void {
    this.#log = log;
    for (const key of this.#keys) {
      const dropped = log.find(key)?.droppedThrough ?? log.forgottenThrough;
      if (dropped > 0) this.onMissed(key, 0, dropped);
    }
  }

  onMissed(key: string, after: number, through: number): void {
    this.#reports.push({ key, after, through });
    void this.#readMissed(key, after, through);
  }

  /** Reads a missed range, page by page, until it is complete or the log is replaced. */
  async #readMissed(key: string, after: number, through: number): Promise<void> {
    const log = this.#log;
    this.#reading++;
    for (let cursor = after; cursor < through && this.#isOpen && log === this.#log; ) {
      await until(this.#timeout, "reading a missed range", "a page", async () => {
        try {
          const page = await this.read([key], cursor);
          if (page.through <= cursor) return false;
          for (const { seq, keys, text } of page.records)
            if (seq <= through) this.#readEntries.push({ id: `${page.epoch}-${seq}`, seq, keys, text });
          cursor = page.through;
          return true;
        } catch {
          // The engine is down. A broker reads again later.
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
  async waitUntilUp(): Promise<void> {
    await until(this.#timeout, "the engine", "to be up", () => this.isUp);
  }

  /** Appends an event. The engine is called before this returns. Rejects as the engine does. */
  async append(keys: readonly string[], data: string, idempotencyKey?: string): Promise<AppendAnswer> {
    const text = textOf(data);
    const appending = this.#session.append(keys, text, idempotencyKey);
    const { epoch, seq, repeated } = await withTimeout(this.#timeout, `appending ${data}`, appending);
    return { epoch, seq, repeated, keys, text };
  }

  /** Sends an ephemeral event. The engine is called before this returns. */
  async sendEphemeral(keys: readonly string[], data: string): Promise<void> {
    await withTimeout(this.#timeout, `sending ${data}`, this.#session.sendEphemeral?.(keys, textOf(data)));
  }

  /** Appends an event as soon as the engine is up. */
  appendOnceUp(keys: readonly string[], data: string, idempotencyKey?: string): Promise<AppendAnswer> {
    return retryWhileDown(this.#timeout, `appending ${data}`, () => this.append(keys, data, idempotencyKey));
  }

  async subscribe(...keys: readonly string[]): Promise<void> {
    await withTimeout(this.#timeout, `subscribing to ${JSON.stringify(keys)}`, this.#session.subscribe?.(keys));
    for (const key of keys) this.#keys.add(key);
  }

  unsubscribe(...keys: readonly string[]): void {
    this.#session.unsubscribe?.(keys);
  }

  /** Reads a page of these channels after a position. */
  async read(keys: readonly string[], after: number): Promise<ReplayPage> {
    const session = this.#session;
    if (!session.read) return readPage(session.log, keys, after);
    return withTimeout(this.#timeout, `reading ${JSON.stringify(keys)}`, session.read(keys, after));
  }

  /** Returns the events of these channels that were reported, in the order of the reports. */
  received(...keys: readonly string[]): ReceivedEntry[] {
    return this.#reports.filter(isEntry).filter((event) => event.keys.some((key) => keys.includes(key)));
  }

  /** Returns the data of the events of these channels that were reported, in the order of the reports. */
  receivedData(...keys: readonly string[]): string[] {
    return this.received(...keys).map(dataOf);
  }

  /** Returns the data of the events of these channels that were reported, or read because they were missed, in the order of positions. */
  knownData(...keys: readonly string[]): string[] {
    const events = this.received(...keys);
    const ids = new Set(events.map(({ id }) => id));
    for (const event of this.#readEntries) {
      if (ids.has(event.id) || !event.keys.some((key) => keys.includes(key))) continue;
      ids.add(event.id);
      events.push(event);
    }
    return events.sort((a, b) => a.seq - b.seq).map(dataOf);
  }

  /** Returns those of these events that the head of the log has passed without a report. All of them are of subscribed channels. */
  unreported(events: readonly AppendedEvent[]): AppendedEvent[] {
    const isReported = (event: AppendedEvent): boolean => this.#reports.some((report) => covers(report, event));
    return events.filter((event) => event.seq <= this.position && !isReported(event));
  }

  /** Waits until an event with this data was reported or read, and every missed range is read. */
  async waitFor(data: string): Promise<ReceivedEntry> {
    const text = textOf(data);
    const find = (): ReceivedEntry | undefined =>
      [...this.#reports.filter(isEntry), ...this.#readEntries].find((event) => event.text === text);
    return until(
      this.#timeout,
      "a listener",
      `to receive ${data}`,
      () => {
        if (this.#failure !== undefined) throw this.#failure;
        return this.#reading === 0 && find();
      },
      () => this.#reports.map((report) => (isEntry(report) ? report.text : report)),
    );
  }

  /**
   * Checks that the events of these channels were reported in the order of positions, each once, and that every earlier event of a channel was
   * reported or reported as missed before. `appended`, in order, are all events of one epoch that were appended after the subscription.
   */
  checkOrder(appended: readonly AppendedEvent[], ...keys: readonly string[]): void {
    const open = new Set(appended.filter((event) => event.keys.some((key) => keys.includes(key))));
    let last = 0;
    for (const report of this.#reports) {
      if (isEntry(report)) {
        if (!report.keys.some((key) => keys.includes(key))) continue;
        check(report.seq > last, "the next position that is reported", `one over ${last}`, report.seq);
        last = report.seq;
      }
      for (const event of open) if (covers(report, event)) open.delete(event);
      if (!isEntry(report)) continue;
      const skipped = [...open].filter(
        (event) => event.seq < report.seq && event.keys.some((key) => report.keys.includes(key)),
      );
      equal(
        `events that were not reported before event ${report.seq} of the same channel`,
        skipped.map(({ seq }) => seq),
        [],
      );
    }
  }

  close(): void {
    this.#isOpen = false;
    this.#session.close();
  }
}
