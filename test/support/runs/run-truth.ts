// One run of a simulation, as the contract of its store says it has to be.
import type { RunEnd, RunPage, RunStart } from "../../../src/engine/run-store.ts";
import { decode } from "../../../src/event/sse-format.ts";

/** An event as a reader has to receive it. */
export interface TrueEvent {
  readonly event?: string;
  readonly data: string;
}

/** Reads the wire form of an event (HTML standard, section 9.2.6), without its id. */
function eventOf(text: string): TrueEvent {
  const fields = text
    .split("\n")
    .map((line) => [line.slice(0, line.indexOf(": ")), line.slice(line.indexOf(": ") + 2)]);
  const data = fields.flatMap(([name, value]) => (name === "data" ? [value] : [])).join("\n");
  const event = fields.find(([name]) => name === "event")?.[1];
  return event === undefined ? { data } : { event, data };
}

export class RunTruth {
  readonly id: string;
  readonly generation: string;
  /** The process that began it. */
  readonly owner: number;
  readonly leaseMs: number;
  readonly retainMs: number;
  readonly readers: string | undefined;
  /** Wire forms of all events. */
  readonly texts: string[] = [];
  readonly #events: TrueEvent[] = [];
  end: RunEnd | undefined;
  endedAt = Infinity;
  isLostByLease = false;
  isStopping = false;
  leaseUntil: number;
  /** Whether the store has dropped it. */
  isGone = false;
  isEmptied = false;
  /** When its producer has asked the store to keep it live. */
  readonly tries: number[] = [];
  /** When it last changed. */
  changedAt: number;
  /** When its producer was last answered that events are stored, or that the run has begun. */
  answeredAt: number;

  constructor(id: string, owner: number, { generation, leaseMs, retainMs, readers }: RunStart, time: number) {
    this.id = id;
    this.owner = owner;
    this.generation = generation;
    this.leaseMs = leaseMs;
    this.retainMs = retainMs;
    this.readers = readers;
    this.leaseUntil = time + leaseMs;
    this.answeredAt = time;
    this.changedAt = time;
  }

  get name(): string {
    return `run ${this.id} of process ${this.owner}`;
  }

  /** The events as readers receive them. */
  get events(): readonly TrueEvent[] {
    while (this.#events.length < this.texts.length)
      this.#events.push(eventOf(this.texts[this.#events.length] as string));
    return this.#events;
  }

  renew(time: number): void {
    this.leaseUntil = time + this.leaseMs;
  }

  /** Whether the store may drop the run. */
  mayBeGone(time: number): boolean {
    return this.end !== undefined && time >= this.endedAt + this.retainMs;
  }

  /** Compares a page of the store, read after an event. Returns the fault. */
  compare(page: RunPage | undefined, after: number, time: number): string | undefined {
    if (!page) return this.mayBeGone(time) ? undefined : "the store has dropped it too early";
    const { generation, events, end, isStopping, leaseMs, readers, through, bytes } = page;
    const { texts } = this;
    const facts = { generation, events, end, isStopping, readers };
    const expected = {
      ...{ generation: this.generation, events: texts.length, end: this.end },
      ...{ isStopping: this.isStopping, readers: this.readers },
    };
    if (JSON.stringify(facts) !== JSON.stringify(expected))
      return `the store has ${JSON.stringify(facts)}, not ${JSON.stringify(expected)}`;
    const leftMs = end ? Infinity : this.leaseUntil - time;
    if (leaseMs !== leftMs && !(Math.abs(leaseMs - leftMs) < 0.001)) return `its lease is over in ${leaseMs} ms`;
    if (after >= texts.length)
      return bytes.length > 0 || through !== after ? `events follow after ${after}, through ${through}` : undefined;
    if (through <= after || through > texts.length) return `a page after ${after} ends with ${through}`;
    const wire = texts.slice(after, through).map((text, index) => withId(text, `${generation}-${after + index + 1}`));
    return decode(bytes) === wire.join("") ? undefined : `the page after ${after} is ${JSON.stringify(decode(bytes))}`;
  }
}

/** Puts the line of an id before the first line of data. */
function withId(text: string, id: string): string {
  const lines = text.split("\n");
  const first = lines.findIndex((line) => line.startsWith("data: "));
  return lines.toSpliced(first, 0, `id: ${id}`).join("\n");
}
