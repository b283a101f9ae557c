// Judges what processes have seen of runs, while it happens. All of them are in one program, so there is one clock.
import type { RunEnd, RunPage, RunStatus } from "../../../src/engine/run-store.ts";
import { decode } from "../../../src/event/sse-format.ts";

/** Redis counts whole milliseconds. */
const ROUNDING_MS = 3;

export const textOf = (generation: string, number: number): string => `data: ${generation} ${number}\n\n`;
const frameOf = (generation: string, number: number): string =>
  `id: ${generation}-${number}\ndata: ${generation} ${number}\n\n`;

interface Ending {
  readonly end: RunEnd;
  readonly events: number;
}

/** Everything that is known of one generation of a run. */
interface Generation {
  readonly id: string;
  readonly name: string;
  readonly leaseMs: number;
  /** Its place among those of its id, once that is certain. */
  rank: number;
  /** How often the store had been emptied when its start was confirmed; -1 until then, or if it is not certain. */
  startedAt: number;
  /** Events that its producer has given, and those of them that were confirmed. */
  submitted: number;
  confirmed: number;
  /** The end that its producer has given. */
  given: Ending | undefined;
  /** The end that was confirmed or read. */
  ending: Ending | undefined;
  isStopping: boolean;
  /** When the last call began that is known to have renewed its lease. */
  renewedAt: number;
}

/** What was known when a call began. */
interface Known {
  readonly at: number;
  readonly rank: number;
  /** How often the store has been emptied. */
  readonly wiped: number;
  readonly generations: readonly Readonly<Generation>[];
}

const now = (): number => performance.now();
const show = (ending: Ending | undefined): string => (ending ? `${ending.end} at ${ending.events}` : "live");

export class RunsOracle {
  readonly faults: string[] = [];
  readonly counts: Record<string, number> = {};
  readonly #generations = new Map<string, Generation>();
  /** The highest rank of each id. */
  readonly #ranks = new Map<string, number>();
  /** How often somebody began to empty the store, and how often it was done. */
  #wipes = 0;
  #wiped = 0;

  /** Empties the store. */
  async wipe(empty: () => Promise<unknown>): Promise<void> {
    this.#wipes++;
    await empty();
    this.#wiped = this.#wipes;
  }

  count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }

  /** Notes a run whose start is about to be given. */
  add(id: string, name: string, leaseMs: number): void {
    this.#generations.set(name, {
      ...{ id, name, leaseMs, rank: 0, startedAt: -1, submitted: 0, confirmed: 0 },
      ...{ given: undefined, ending: undefined, isStopping: false, renewedAt: -Infinity },
    });
  }

  /** A call begins. */
  begin(id: string): Known {
    const generations = [...this.#generations.values()].filter((generation) => generation.id === id);
    return {
      ...{ at: now(), rank: this.#ranks.get(id) ?? 0, wiped: this.#wiped },
      generations: generations.map((generation) => ({ ...generation })),
    };
  }

  started(name: string, known: Known, isStarted: boolean): void {
    const generation = this.#of(name);
    if (isStarted) {
      this.#rank(generation, known);
      generation.startedAt = known.wiped === this.#wipes ? this.#wipes : -1;
      this.#renewed(generation, known);
      return;
    }
    this.count("refused starts");
    const others = known.generations.filter((other) => other.name !== name);
    if (others.every(({ ending, startedAt }) => ending || (startedAt >= 0 && startedAt < known.wiped)))
      this.#fault(generation, "start refused, though no run was live");
  }

  submit(name: string, events: number, end: RunEnd | undefined): void {
    const generation = this.#of(name);
    generation.submitted = Math.max(generation.submitted, events);
    if (end) generation.given = { end, events };
  }

  appended(name: string, known: Known, isAppended: boolean, events: number, end: RunEnd | undefined): void {
    const generation = this.#of(name);
    if (!isAppended) {
      this.#over(generation, "append refused");
      return;
    }
    const before = known.generations.find((each) => each.name === name)?.ending;
    if (before && (before.end !== end || before.events !== events))
      this.#fault(generation, `append of ${events} confirmed after its end (${show(before)})`);
    generation.confirmed = Math.max(generation.confirmed, events);
    if (end) this.#end(generation, { end, events });
    else this.#renewed(generation, known);
    this.count("confirmed appends");
  }

  renewed(name: string, known: Known, status: RunStatus | undefined): void {
    const generation = this.#of(name);
    if (status !== "over") this.#renewed(generation, known);
    else if (!generation.given) this.#over(generation, "renewal refused");
    const wasStopping = known.generations.some((each) => each.name === name && each.isStopping);
    if (status === "live" && wasStopping) this.#fault(generation, "its stop was forgotten");
    if (status === "stopping") generation.isStopping = true;
  }

  read(id: string, after: number, known: Known, page: RunPage | undefined): void {
    this.count("reads");
    if (!page) {
      this.count("unknown");
      const isKept = known.generations.some(({ startedAt }) => startedAt === this.#wipes);
      if (isKept) this.faults.push(`${id}: is unknown, though it had begun`);
      return;
    }
    const generation = this.#generations.get(page.generation);
    if (!generation || generation.id !== id) {
      this.faults.push(`${id}: has the generation ${page.generation}, which nobody has started there`);
      return;
    }
    const before = known.generations.find(({ name }) => name === generation.name);
    if (before && before.startedAt >= 0 && before.startedAt < known.wiped)
      this.#fault(generation, "is there again after the store was emptied");
    if (generation.rank > 0 && generation.rank < known.rank) this.#fault(generation, "is there after a later one");
    this.#rank(generation, known);
    this.#checkEvents(generation, after, page, before?.confirmed ?? 0);
    if (page.end) this.#end(generation, { end: page.end, events: page.events });
    else if (before?.ending) this.#fault(generation, `is live after its end (${show(before.ending)})`);
    else if (page.leaseMs <= 0 || page.leaseMs > generation.leaseMs)
      this.#fault(generation, `has a lease of ${page.leaseMs} ms`);
    if (page.isStopping) generation.isStopping = true;
    else if (before?.isStopping) this.#fault(generation, "its stop was forgotten");
  }

  #checkEvents(generation: Generation, after: number, page: RunPage, confirmed: number): void {
    const { name, submitted } = generation;
    let expected = "";
    for (let number = after + 1; number <= page.through; number++) expected += frameOf(name, number);
    const text = decode(page.bytes);
    if (text !== expected) this.#fault(generation, `has other events after ${after}: ${JSON.stringify(text)}`);
    if (page.events < confirmed) this.#fault(generation, `has ${page.events} events of ${confirmed} confirmed ones`);
    if (page.events > submitted) this.#fault(generation, `has ${page.events} events of ${submitted} given ones`);
    if (page.through > Math.max(after, page.events)) this.#fault(generation, `has ${page.through} of ${page.events}`);
    if (after < page.events && page.through === after) this.#fault(generation, `has an empty page after ${after}`);
    this.counts.events = (this.counts.events ?? 0) + Math.max(0, page.through - after);
  }

  #end(generation: Generation, ending: Ending): void {
    const { given, ending: first } = generation;
    if (first) {
      const isSame = first.end === ending.end && first.events === ending.events;
      if (!isSame) this.#fault(generation, `has two ends: ${show(first)} and ${show(ending)}`);
      return;
    }
    this.count(ending.end);
    generation.ending = ending;
    if (ending.end === "lost") this.#over(generation, "is lost");
    else if (given?.end !== ending.end || given.events !== ending.events)
      this.#fault(generation, `has the end ${show(ending)}, and not ${show(given)}`);
  }

  /** A run is over without an end of its producer: its lease must be. */
  #over(generation: Generation, how: string): void {
    const isWiped = generation.startedAt !== this.#wipes;
    const left = generation.renewedAt + generation.leaseMs - now();
    if (!isWiped && left > ROUNDING_MS)
      this.#fault(generation, `${how}, ${Math.round(left)} ms before its lease is over`);
  }

  #renewed(generation: Generation, { at }: Known): void {
    generation.renewedAt = Math.max(generation.renewedAt, at);
  }

  /** Gives a generation that was just seen its place, unless another one was seen since the call began: either may be the later one. */
  #rank(generation: Generation, known: Known): void {
    const highest = this.#ranks.get(generation.id) ?? 0;
    if (generation.rank > 0 || highest !== known.rank) return;
    generation.rank = highest + 1;
    this.#ranks.set(generation.id, generation.rank);
  }

  #of(name: string): Generation {
    return this.#generations.get(name) as Generation;
  }

  #fault({ id, name }: Generation, text: string): void {
    this.faults.push(`${id}, ${name}: ${text}`);
  }
}
