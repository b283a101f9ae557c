// Finds where a replay of bounded size begins, without a walk over the events.
import type { MaxReplay } from "../log/resume.ts";
import type { Commands } from "./commands.ts";
import { parseSeq } from "./messages.ts";

/** Events and bytes. */
interface Amount {
  readonly events: number;
  readonly bytes: number;
}

/** The counts of events and bytes that channels had up to a position. */
interface CountedThrough extends Amount {
  /** The position of the next event, or `Infinity`. */
  readonly next: number;
}

const bound = (value: number): string => (value === Infinity ? "-1" : String(Math.floor(value)));

/**
 * A search for the position after which the newest events lie, as many as `maxReplay` allows. The newest few hundred events are counted one by
 * one. Before them, each entry has the number of events and bytes of its channel, so a position costs a look at each channel. There an event of
 * several channels counts in each of them, so a replay never has more than `maxReplay` allows, and may have less.
 *
 * Each channel has a start of its own: what is not after it does not count, because it is not replayed in any case.
 *
 * Each script does a bounded amount of work. The log may grow and be trimmed between two of them: neither changes what lies after a position.
 */
export class ReplayFloor {
  readonly #commands: Commands;
  readonly #epoch: string;
  /** For each script: keys, each with the position after which its channel starts. */
  readonly #groups: readonly (readonly string[])[];
  readonly #start: number;
  readonly #max: Amount;

  constructor(
    commands: Commands,
    epoch: string,
    groups: readonly (readonly string[])[],
    starts: readonly number[],
    { events = Infinity, bytes = Infinity }: MaxReplay,
  ) {
    this.#commands = commands;
    this.#epoch = epoch;
    let place = 0;
    this.#groups = groups.map((keys) => keys.flatMap((key) => [key, String(starts[place++])]));
    this.#start = Math.min(...starts);
    this.#max = { events, bytes };
  }

  /**
   * Returns the position, or 0 if everything after the starts may be replayed. `head` is the position of the newest event. Returns `undefined`
   * if the log was replaced in the meantime.
   */
  async find(head: number): Promise<number | undefined> {
    const max = this.#max;
    const start = this.#start;
    if ((max.events === Infinity && max.bytes === Infinity) || start >= head) return 0;
    let counted: Amount = { events: 0, bytes: 0 };
    let top = head;
    const [keys = []] = this.#groups;
    if (this.#groups.length === 1) {
      const args = [this.#epoch, String(head), bound(max.events), bound(max.bytes), ...keys];
      const [epoch, through, state, events, bytes] = (await this.#commands.run("countNewest", args)) as string[];
      if (epoch !== this.#epoch) return undefined;
      if (state === "end") return 0;
      top = parseSeq(through);
      if (state === "full") return top;
      counted = { events: Number(events), bytes: Number(bytes) };
    }
    return this.#search(start, top, counted);
  }

  /** Searches between `low` and `high`. `counted` are the events after `high`, which fit. */
  async #search(low: number, high: number, counted: Amount): Promise<number | undefined> {
    const max = this.#max;
    const atHigh = await this.#countThrough(high);
    const atLow = await this.#countThrough(low);
    if (!atHigh || !atLow) return undefined;
    /** How much of the larger part of the bound the events after a position take: over 1 is too much. */
    const share = (at: Amount): number => {
      const events = counted.events + atHigh.events - at.events;
      const bytes = counted.bytes + atHigh.bytes - at.bytes;
      if (events > max.events || bytes > max.bytes) return Math.max(events / max.events, bytes / max.bytes, 1 + 1e-9);
      return Math.max(max.events > 0 ? events / max.events : 0, max.bytes > 0 ? bytes / max.bytes : 0);
    };
    if (share(atLow) <= 1) return 0;
    let [tooMuch, fits] = [Math.min(share(atLow), 1e9), share(atHigh)];
    // No event lies between a position and the next event, so the search goes on there.
    for (let from = Math.max(low, atLow.next - 1), to = high, round = 1; ; round++) {
      if (to - from <= 1) return to;
      // Mostly events are spread evenly. Every third time, the middle bounds the number of rounds.
      const part = round % 3 === 0 ? 0.5 : (1 - fits) / (tooMuch - fits);
      const middle = Math.min(to - 1, Math.max(from + 1, Math.round(to - part * (to - from))));
      const at = await this.#countThrough(middle);
      if (!at) return undefined;
      if (share(at) <= 1) {
        to = middle;
        fits = share(at);
      } else {
        from = Math.max(middle, at.next - 1);
        tooMuch = Math.min(share(at), 1e9);
        if (from >= to) return to;
      }
    }
  }

  async #countThrough(position: number): Promise<CountedThrough | undefined> {
    let [events, bytes, next] = [0, 0, Infinity];
    for (const keys of this.#groups) {
      const args = [this.#epoch, String(position), ...keys];
      const [epoch, ...lines] = (await this.#commands.run("countThrough", args)) as string[];
      if (epoch !== this.#epoch) return undefined;
      for (const line of lines) {
        const [eventsOfChannel, bytesOfChannel, nextOfChannel] = line.split(" ");
        events += Number(eventsOfChannel);
        bytes += Number(bytesOfChannel);
        if (nextOfChannel !== "-") next = Math.min(next, parseSeq(nextOfChannel));
      }
    }
    return { events, bytes, next };
  }
}
