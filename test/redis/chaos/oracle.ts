import { type Position, parsePosition } from "../../../src/event/position.ts";

// What clients may expect of several broker processes on one store, said as simply as possible: the oracle knows what was published, what
// was answered, and what each client saw over all of its connections; and nothing of how a log is kept. Retention covers every event.

/** An event as it was published. */
export interface Publication {
  /** From 1 on, in the order in which publishing began. */
  readonly number: number;
  /** Public names of its channels; `fanwire-inbox:<id>` for what went to one recipient. */
  readonly channels: readonly string[];
  /** The position that it was acknowledged with. */
  readonly id: string | undefined;
  /** An attempt ended without an answer, or with the answer that its outcome is unknown. */
  readonly doubtful: boolean;
}

/** Something that a client saw, in its order. */
export type Sight =
  | { readonly type: "event"; readonly id: string; readonly number: number }
  | {
      readonly type: "gap";
      readonly id: string;
      readonly channels: readonly string[];
      readonly after: string | null;
      readonly through: string;
    }
  | {
      readonly type: "ready";
      /** What it asked for. */
      readonly asked: string | undefined;
      readonly id: string | undefined;
      readonly resumed: boolean;
      /** Who answered; it is not judged. */
      readonly by?: string;
    };

/** All that one client saw, over all of its connections. */
export interface Life {
  readonly name: string;
  readonly channels: readonly string[];
  /** It has a claim to every publication after this number: those that began after its first `ready`. */
  readonly claim: number;
  readonly seen: readonly Sight[];
}

/** What came of a run. */
export interface Verdict {
  /** What is wrong, the worst first; nothing if all is well. */
  readonly faults: readonly string[];
  readonly silent: number;
  readonly gaps: number;
  readonly events: number;
  /** Events of the new epoch that gaps cover, though they are kept. */
  readonly wasted: number;
}

/** What may have happened in a run. */
export interface Allowed {
  /** The store lost what it had, so that the epoch changed. */
  readonly change: boolean;
  /** The feed left something out without a sign. Who has read on by the time that it is found cannot be given it in order, and is told. */
  readonly miss: boolean;
}

/** Judges all lives; `epochs` are those that anybody saw, in the order of their appearance. */
export function judge(
  published: readonly Publication[],
  lives: readonly Life[],
  epochs: readonly string[],
  allowed: Allowed,
): Verdict {
  const court = new Court(published, lives, epochs, allowed);
  const silent = lives.flatMap((life) => court.silence(life));
  const faults = [...silent, ...court.positions(), ...lives.flatMap((life) => court.life(life))];
  if (!allowed.change && epochs.length > 1)
    faults.push(`the epoch changed, though nothing gave a reason: ${epochs.join(", ")}`);
  const seen = lives.flatMap((life) => life.seen);
  return {
    faults,
    silent: silent.length,
    gaps: seen.filter(({ type }) => type === "gap").length,
    events: seen.filter(({ type }) => type === "event").length,
    wasted: lives.reduce((sum, life) => sum + court.wasted(life), 0),
  };
}

type GapSight = Sight & { readonly type: "gap" };
const isGap = (sight: Sight): sight is GapSight => sight.type === "gap";

class Court {
  readonly #published: readonly Publication[];
  readonly #byNumber: ReadonlyMap<number, Publication>;
  readonly #lives: readonly Life[];
  readonly #epochs: readonly string[];
  readonly #allowed: Allowed;

  constructor(published: readonly Publication[], lives: readonly Life[], epochs: readonly string[], allowed: Allowed) {
    this.#allowed = allowed;
    this.#published = published;
    this.#byNumber = new Map(published.map((each) => [each.number, each]));
    this.#lives = lives;
    this.#epochs = epochs;
  }

  /** What was acknowledged and did not come, and no gap of that channel covers it. */
  silence({ name, channels, claim, seen }: Life): string[] {
    const got = new Set(seen.map((sight) => (sight.type === "event" ? sight.id : "")));
    const gaps = seen.filter(isGap);
    const faults: string[] = [];
    for (const { number, id, channels: targets } of this.#published) {
      if (number <= claim || id === undefined || got.has(id)) continue;
      for (const target of targets) {
        if (!channels.includes(target) || gaps.some((gap) => this.#covers(gap, target, id))) continue;
        faults.push(`${name}: publication ${number} of ${target} at ${id} was lost in silence`);
      }
    }
    return faults;
  }

  /** No position names two events, and no event has two positions of one epoch. */
  positions(): string[] {
    const faults = new Set<string>();
    const numbers = new Map<string, number>();
    const places = new Map<string, string>();
    const place = (id: string, number: number): void => {
      const other = numbers.get(id) ?? number;
      if (other !== number) faults.add(`${id} is the position of publication ${other} and of ${number}`);
      numbers.set(id, number);
      const kind = `${number} ${parsePosition(id)?.epoch}`;
      const first = places.get(kind) ?? id;
      if (first !== id) faults.add(`publication ${number} is doubled: it is at ${first} and at ${id}`);
      places.set(kind, id);
    };
    for (const { id, number } of this.#published) if (id !== undefined) place(id, number);
    for (const { seen } of this.#lives)
      for (const sight of seen) if (sight.type === "event") place(sight.id, sight.number);
    return [...faults];
  }

  /** In order, each at most once, only what is this client's, and no gap without a reason. */
  life({ name, channels, seen }: Life): string[] {
    const faults: string[] = [];
    const had = new Set<number>();
    let last: Position | undefined;
    for (const sight of seen) {
      const at = sight.id === undefined ? undefined : parsePosition(sight.id);
      if (sight.type === "event") {
        const fault = this.#event(sight.number, at, last, channels, had);
        if (fault) faults.push(`${name}: ${fault}`);
        had.add(sight.number);
      } else if (sight.type === "gap") {
        const fault = this.#gap(sight, at, last, seen);
        if (fault)
          faults.push(
            `${name}: a gap of ${sight.channels.length} channels, ${sight.after} to ${sight.through}: ${fault}`,
          );
      } else {
        const fault = this.#ready(sight);
        if (fault) faults.push(`${name}: ready at ${sight.id} for who asked for ${sight.asked}: ${fault}`);
      }
      // An event without a position is a fault by itself; and what goes back must not hide what comes after it.
      if (at && (!last || this.#compare(at, last) > 0)) last = at;
    }
    return faults;
  }

  /** Events of a new epoch, kept from its beginning on, that the gap which told of it covers. */
  wasted({ channels, seen }: Life): number {
    const got = new Set(seen.map((sight) => (sight.type === "event" ? sight.id : "")));
    const gaps = seen.filter((sight): sight is GapSight => isGap(sight) && sight.after === null);
    return this.#published.filter(({ id, channels: targets }) => {
      if (id === undefined || got.has(id)) return false;
      const epoch = parsePosition(id)?.epoch;
      return gaps.some(
        (gap) =>
          parsePosition(gap.through)?.epoch === epoch &&
          targets.some((target) => channels.includes(target) && this.#covers(gap, target, id)),
      );
    }).length;
  }

  #event(
    number: number,
    at: Position | undefined,
    last: Position | undefined,
    channels: readonly string[],
    had: ReadonlySet<number>,
  ): string | undefined {
    const publication = this.#byNumber.get(number);
    if (!publication) return `event ${number} was never published`;
    if (!at) return `event ${number} has no position`;
    const where = `event ${number} at ${at.epoch}-${at.seq}`;
    if (!publication.channels.some((channel) => channels.includes(channel))) return `${where} is not for it`;
    if (last && this.#compare(at, last) <= 0) return `${where} came after ${last.epoch}-${last.seq}`;
    if (last && last.epoch !== at.epoch) return `${where} is of another epoch, and no gap was told`;
    if (!had.has(number)) return undefined;
    // Its first append went with the old epoch, and nobody was told that it had happened.
    return publication.doubtful && this.#epochs.length > 1 ? undefined : `${where} came twice`;
  }

  #gap(
    gap: GapSight,
    at: Position | undefined,
    last: Position | undefined,
    seen: readonly Sight[],
  ): string | undefined {
    const { after, through } = gap;
    const end = parsePosition(through);
    const begin = after === null ? undefined : parsePosition(after);
    if (!at || !end || (after !== null && !begin)) return "its positions are malformed";
    if (last && this.#compare(at, last) < 0) return `its id ${at.epoch}-${at.seq} is before ${last.epoch}-${last.seq}`;
    if (begin && begin.epoch === end.epoch) {
      if (!this.#allowed.miss) return "it lies in one epoch, of which everything is kept";
      return this.#isFalseAlarm(gap, seen) ? "it is a false alarm" : undefined;
    }
    if (last?.epoch === end.epoch || this.#epochs.length === 1) return "the epoch did not change";
    return undefined;
  }

  /** Whether there is a channel of which a gap covers nothing that did not come. What was not acknowledged may have been there. */
  #isFalseAlarm(gap: GapSight, seen: readonly Sight[]): boolean {
    const got = new Set(seen.map((sight) => (sight.type === "event" ? sight.id : "")));
    return !gap.channels.every((channel) =>
      this.#published.some(
        ({ id, channels }) =>
          channels.includes(channel) && (id === undefined || (!got.has(id) && this.#covers(gap, channel, id))),
      ),
    );
  }

  #ready({ asked, id, resumed }: Sight & { readonly type: "ready" }): string | undefined {
    if (resumed) return id === asked ? undefined : "it goes on somewhere else";
    if (asked !== undefined && this.#epochs.length === 1) return "it did not resume";
    return undefined;
  }

  /** Whether a gap tells of this position. */
  #covers({ channels, after, through }: GapSight, channel: string, id: string): boolean {
    const at = parsePosition(id);
    const end = parsePosition(through);
    if (!at || !end || !channels.includes(channel) || this.#compare(at, end) > 0) return false;
    const begin = after === null ? undefined : parsePosition(after);
    return !begin || this.#compare(at, begin) > 0;
  }

  #compare(a: Position, b: Position): number {
    return a.epoch === b.epoch ? a.seq - b.seq : this.#epochs.indexOf(a.epoch) - this.#epochs.indexOf(b.epoch);
  }
}
