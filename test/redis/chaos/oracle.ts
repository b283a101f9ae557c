// Judges a run of several brokers on one store by what clients may expect, as simply as possible. The oracle knows what was published, how that was
// answered, and what each client received over all of its connections. It knows nothing of how a log works. Retention covers every event.
import { type Position, parsePosition } from "../../../src/event/position.ts";

/** A published event. */
export interface Publication {
  /** From 1 on, in the order in which publishing began. */
  readonly number: number;
  /** Public names of its channels; `fanwire-inbox:<id>` for an event to one recipient. */
  readonly channels: readonly string[];
  /** The position that the publisher received. `undefined` if the event was not acknowledged. */
  readonly id: string | undefined;
  /** An attempt ended without an answer, or with the answer that its outcome is unknown. */
  readonly isUncertain: boolean;
}

/** One item that a client received. */
export type Observation =
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
      /** The id with which the client connected. */
      readonly requestedId: string | undefined;
      readonly id: string | undefined;
      readonly resumed: boolean;
      /** The instance that answered. The oracle does not use it. */
      readonly instance?: string;
    }
  /** The stream has joined a channel. It is entitled to every publication of it after this number, as long as it lasts. */
  | { readonly type: "joined"; readonly id: undefined; readonly channel: string; readonly after: number }
  /** The stream is about to leave the channel. These publications were acknowledged before. */
  | {
      readonly type: "leaving";
      readonly id: undefined;
      readonly channel: string;
      readonly acknowledged: ReadonlySet<number>;
    };

/** Everything that one client received, over all of its connections. */
export interface ClientHistory {
  readonly name: string;
  readonly channels: readonly string[];
  /** Channels that it asked to join. It may have joined one although its request had no answer. */
  readonly asked?: readonly string[];
  /** The client is entitled to every publication after this number: those that began after its first `ready`. */
  readonly entitledAfter: number;
  readonly observations: readonly Observation[];
}

/** The result of a run. */
export interface Judgement {
  /** All faults, the worst first. Empty if there are none. */
  readonly faults: readonly string[];
  readonly silentLosses: number;
  readonly gaps: number;
  readonly events: number;
  /** Retained events of the new epoch that gaps cover. */
  readonly coveredEvents: number;
}

/** Faults of the environment that explain a gap. */
export interface Allowed {
  /** The store lost data, so that the epoch changed. */
  readonly epochChange: boolean;
  /** The feed lost messages without an error. A client that has read on by the time the loss is found receives a gap. */
  readonly feedLoss: boolean;
}

/** Judges all clients. `epochs` are all epochs that appeared, in order of appearance. */
export function judge(
  publications: readonly Publication[],
  clients: readonly ClientHistory[],
  epochs: readonly string[],
  allowed: Allowed,
): Judgement {
  const oracle = new Oracle(publications, clients, epochs, allowed);
  const silentLosses = clients.flatMap((client) => [...oracle.silentLosses(client), ...oracle.lossesOfJoined(client)]);
  const faults = [...silentLosses, ...oracle.positionFaults(), ...clients.flatMap((client) => oracle.faultsOf(client))];
  if (!allowed.epochChange && epochs.length > 1)
    faults.push(`the epoch changed without a reason: ${epochs.join(", ")}`);
  const observations = clients.flatMap((client) => client.observations);
  return {
    faults,
    silentLosses: silentLosses.length,
    gaps: observations.filter(({ type }) => type === "gap").length,
    events: observations.filter(({ type }) => type === "event").length,
    coveredEvents: clients.reduce((sum, client) => sum + oracle.coveredEvents(client), 0),
  };
}

type GapObservation = Observation & { readonly type: "gap" };
const isGap = (observation: Observation): observation is GapObservation => observation.type === "gap";

/** Returns the ids of all events among some observations. */
const receivedIds = (observations: readonly Observation[]): ReadonlySet<string> =>
  new Set(observations.flatMap((observation) => (observation.type === "event" ? observation.id : [])));

class Oracle {
  readonly #publications: readonly Publication[];
  readonly #byNumber: ReadonlyMap<number, Publication>;
  readonly #clients: readonly ClientHistory[];
  readonly #epochs: readonly string[];
  readonly #allowed: Allowed;

  constructor(
    publications: readonly Publication[],
    clients: readonly ClientHistory[],
    epochs: readonly string[],
    allowed: Allowed,
  ) {
    this.#allowed = allowed;
    this.#publications = publications;
    this.#byNumber = new Map(publications.map((publication) => [publication.number, publication]));
    this.#clients = clients;
    this.#epochs = epochs;
  }

  /** Finds acknowledged events that did not arrive, and that no gap of their channel covers. */
  silentLosses({ name, channels, entitledAfter, observations }: ClientHistory): string[] {
    const received = receivedIds(observations);
    const gaps = observations.filter(isGap);
    const faults: string[] = [];
    for (const { number, id, channels: targets } of this.#publications) {
      if (number <= entitledAfter || id === undefined || received.has(id)) continue;
      for (const target of targets) {
        if (!channels.includes(target) || gaps.some((gap) => this.#covers(gap, target, id))) continue;
        faults.push(`${name}: publication ${number} of ${target} at ${id} was lost without a gap`);
      }
    }
    return faults;
  }

  /** Finds events of a channel that a stream had joined, that did not arrive before a later one did, and that no gap covers. */
  lossesOfJoined({ name, channels, observations }: ClientHistory): string[] {
    const faults: string[] = [];
    const received = receivedIds(observations);
    const gaps = observations.filter(isGap);
    for (const [index, joined] of observations.entries()) {
      if (joined.type !== "joined") continue;
      const rest = observations.slice(index + 1);
      const end = rest.findIndex(({ type }) => type === "ready");
      const stream = end < 0 ? rest : rest.slice(0, end);
      const leaving = stream.find((other) => other.type === "leaving" && other.channel === joined.channel);
      const last = stream.findLast(({ id }) => id !== undefined)?.id;
      for (const { number, id, channels: targets } of this.#publications) {
        const isDue =
          number > joined.after &&
          targets.includes(joined.channel) &&
          !targets.some((target) => channels.includes(target)) &&
          (leaving?.type !== "leaving" || leaving.acknowledged.has(number));
        if (!isDue || id === undefined || last === undefined || received.has(id)) continue;
        const [at, reached] = [parsePosition(id), parsePosition(last)];
        if (!at || !reached || this.#compare(at, reached) >= 0) continue;
        if (gaps.some((gap) => this.#covers(gap, joined.channel, id))) continue;
        faults.push(`${name}: publication ${number} of the joined ${joined.channel} at ${id} was lost without a gap`);
      }
    }
    return faults;
  }

  /** Finds positions of two events, and events with two positions in one epoch. */
  positionFaults(): string[] {
    const faults = new Set<string>();
    const numbers = new Map<string, number>();
    const ids = new Map<string, string>();
    const check = (id: string, number: number): void => {
      const otherNumber = numbers.get(id) ?? number;
      if (otherNumber !== number) faults.add(`${id} is the position of publication ${otherNumber} and of ${number}`);
      numbers.set(id, number);
      const inEpoch = `${number} ${parsePosition(id)?.epoch}`;
      const firstId = ids.get(inEpoch) ?? id;
      if (firstId !== id) faults.add(`publication ${number} is doubled: it is at ${firstId} and at ${id}`);
      ids.set(inEpoch, id);
    };
    for (const { id, number } of this.#publications) if (id !== undefined) check(id, number);
    for (const { observations } of this.#clients)
      for (const observation of observations)
        if (observation.type === "event") check(observation.id, observation.number);
    return [...faults];
  }

  /** Checks one client: its events in order, each at most once, only of its channels, and no gap without a reason. */
  faultsOf({ name, channels: requested, asked = [], observations }: ClientHistory): string[] {
    const channels = [...requested, ...asked];
    const faults: string[] = [];
    const received = new Set<number>();
    let last: Position | undefined;
    for (const observation of observations) {
      const at = observation.id === undefined ? undefined : parsePosition(observation.id);
      if (observation.type === "event") {
        const fault = this.#eventFault(observation.number, at, last, channels, received);
        if (fault) faults.push(`${name}: ${fault}`);
        received.add(observation.number);
      } else if (observation.type === "gap") {
        const fault = this.#gapFault(observation, at, last, observations);
        const { after, through } = observation;
        if (fault)
          faults.push(`${name}: a gap of ${observation.channels.length} channels, ${after} to ${through}: ${fault}`);
      } else if (observation.type === "ready") {
        const fault = this.#readyFault(observation);
        if (fault) faults.push(`${name}: ready at ${observation.id} after ${observation.requestedId}: ${fault}`);
      }
      // An event without a position is a fault by itself. A position that goes back must not hide faults after it.
      if (at && (!last || this.#compare(at, last) > 0)) last = at;
    }
    return faults;
  }

  /** Counts retained events of a new epoch that the gap at its beginning covers. */
  coveredEvents({ channels, observations }: ClientHistory): number {
    const received = receivedIds(observations);
    const gaps = observations.filter((observation) => isGap(observation) && observation.after === null);
    return this.#publications.filter(({ id, channels: targets }) => {
      if (id === undefined || received.has(id)) return false;
      const epoch = parsePosition(id)?.epoch;
      return (gaps as GapObservation[]).some(
        (gap) =>
          parsePosition(gap.through)?.epoch === epoch &&
          targets.some((target) => channels.includes(target) && this.#covers(gap, target, id)),
      );
    }).length;
  }

  #eventFault(
    number: number,
    at: Position | undefined,
    last: Position | undefined,
    channels: readonly string[],
    received: ReadonlySet<number>,
  ): string | undefined {
    const publication = this.#byNumber.get(number);
    if (!publication) return `event ${number} was never published`;
    if (!at) return `event ${number} has no position`;
    const event = `event ${number} at ${at.epoch}-${at.seq}`;
    if (!publication.channels.some((channel) => channels.includes(channel))) return `${event} is of another channel`;
    if (last && this.#compare(at, last) <= 0) return `${event} came after ${last.epoch}-${last.seq}`;
    if (last && last.epoch !== at.epoch) return `${event} is of another epoch, and no gap came before it`;
    if (!received.has(number)) return undefined;
    // The first append was lost with the old epoch, and its publisher did not receive its position.
    return publication.isUncertain && this.#epochs.length > 1 ? undefined : `${event} came twice`;
  }

  #gapFault(
    gap: GapObservation,
    at: Position | undefined,
    last: Position | undefined,
    observations: readonly Observation[],
  ): string | undefined {
    const { after, through } = gap;
    const end = parsePosition(through);
    const start = after === null ? undefined : parsePosition(after);
    if (!at || !end || (after !== null && !start)) return "its positions are malformed";
    if (last && this.#compare(at, last) < 0) return `its id ${at.epoch}-${at.seq} is before ${last.epoch}-${last.seq}`;
    if (start && start.epoch === end.epoch) {
      if (!this.#allowed.feedLoss) return "it lies in one epoch, of which everything is retained";
      return this.#coversNothing(gap, observations) ? "it covers no missing event" : undefined;
    }
    if (last?.epoch === end.epoch || this.#epochs.length === 1) return "the epoch did not change";
    return undefined;
  }

  /** Whether a gap names a channel of which it covers no missing event. An event that was not acknowledged may lie in any gap. */
  #coversNothing(gap: GapObservation, observations: readonly Observation[]): boolean {
    const received = receivedIds(observations);
    return !gap.channels.every((channel) =>
      this.#publications.some(
        ({ id, channels }) =>
          channels.includes(channel) && (id === undefined || (!received.has(id) && this.#covers(gap, channel, id))),
      ),
    );
  }

  #readyFault({ requestedId, id, resumed }: Observation & { readonly type: "ready" }): string | undefined {
    if (resumed) return id === requestedId ? undefined : "it continues at another position";
    if (requestedId !== undefined && this.#epochs.length === 1) return "it did not resume";
    return undefined;
  }

  /** Whether a gap reports this position of a channel. */
  #covers({ channels, after, through }: GapObservation, channel: string, id: string): boolean {
    const at = parsePosition(id);
    const end = parsePosition(through);
    if (!at || !end || !channels.includes(channel) || this.#compare(at, end) > 0) return false;
    const start = after === null ? undefined : parsePosition(after);
    return !start || this.#compare(at, start) > 0;
  }

  #compare(a: Position, b: Position): number {
    return a.epoch === b.epoch ? a.seq - b.seq : this.#epochs.indexOf(a.epoch) - this.#epochs.indexOf(b.epoch);
  }
}
