import { type AudienceName, audience, due } from "../audience.ts";
import { checkCounting } from "../counter.ts";
import { meter, type Reading, usageOf } from "../meter.ts";
import { type Pattern, Publisher } from "../publisher.ts";
import { percentile } from "../statistics.ts";
import { Subscribers } from "../subscribers.ts";

/** Publishes to those who read. */
export interface EventsLoad {
  readonly kind: "events";
  readonly clients: number;
  readonly audience: AudienceName;
  /** Connections beside them that never read. */
  readonly stalled: number;
  /** Bytes that each connection is sent before anything is measured: until the kernel takes no more for one that never reads. */
  readonly filling?: number;
  /** Characters of an event's data. */
  readonly eventLength: number;
  readonly warmup: number;
  readonly seconds: number;
  /** One phase for each, on the same connections. */
  readonly patterns: readonly Pattern[];
}

/** What one phase came to. */
export interface Phase extends Reading {
  readonly published: number;
  /** Share of the time that the publishing thread was busy. */
  readonly publisherBusy: number;
  readonly delivered: number;
  /** From the first publish to the last delivery. */
  readonly seconds: number;
  /** Milliseconds from the publisher's call to the subscriber. */
  readonly p50: number;
  readonly p99: number;
  /** Events that did not come, all connections together; negative if more came than were published. */
  readonly missing: number;
  /** Connections that did not get as many as they should. */
  readonly uneven: number;
  /** Of the sampled connections. */
  readonly repeated: number;
  /** Where several publishes are in flight the server may have had them so; not counted then. */
  readonly disordered: number;
  readonly gaps: number;
  /** Connections that ended. */
  readonly closed: number;
}

export interface EventsOutcome {
  readonly kind: "events";
  readonly phases: readonly Phase[];
  /** By how many bytes the server's memory grew while all that was published. */
  readonly grown: number;
}

/** How long the server is left alone after the connections were made, in milliseconds. */
const SETTLE = 500;
/** Bytes of an event that only fills. */
const FILLER = 60_000;
/** Seconds without a delivery after which what is missing counts as lost. */
const PATIENCE = 2;

export async function events(port: number, load: EventsLoad): Promise<EventsOutcome> {
  const { clients, eventLength, warmup, seconds, patterns } = load;
  checkCounting(eventLength);
  const readers = audience(load.audience, clients);
  const subscribers = new Subscribers(port, eventLength);
  const publisher = new Publisher({ port, audience: load.audience, clients, eventLength });
  await subscribers.open(clients, { query: readers.query });
  await subscribers.openStalled(load.stalled, readers.query);
  await new Promise((resolve) => setTimeout(resolve, SETTLE));

  const { rss } = await usageOf(port, true);
  await fill();
  const phases: Phase[] = [];
  for (const pattern of patterns) {
    await phase(pattern, warmup);
    phases.push(await phase(pattern, seconds));
  }
  return { kind: "events", phases, grown: (await usageOf(port, true)).rss - rss };

  async function fill(): Promise<void> {
    const { filling = 0 } = load;
    if (filling === 0) return;
    const large = new Publisher({ port, audience: load.audience, clients, eventLength: FILLER });
    const count = Math.ceil(filling / FILLER);
    await large.publish({ inFlight: 1, rate: 0, seconds: 60, events: count });
    await subscribers.settled(count * clients, PATIENCE);
  }

  async function phase(pattern: Pattern, seconds: number): Promise<Phase> {
    const counted = [...subscribers.counts];
    const before = subscribers.delivered;
    for (const sampler of subscribers.samplers) sampler.reset();
    const read = await meter(port);
    const { first, end, start, busy } = await publisher.publish({ ...pattern, seconds });
    const expected = due(readers, clients, first, end);
    const total = expected.reduce((sum, each) => sum + each, 0);
    await subscribers.settled(before + total, PATIENCE);
    const reading = await read();
    const delivered = subscribers.delivered - before;
    const { samplers } = subscribers;
    const latencies = samplers.flatMap((sampler) => sampler.latencies).sort((a, b) => a - b);
    const sum = (name: "repeated" | "disordered" | "gaps"): number =>
      samplers.reduce((all, sampler) => all + sampler[name], 0);
    return {
      ...reading,
      published: end - first,
      publisherBusy: busy,
      delivered,
      seconds: (subscribers.lastAt - start) / 1_000_000,
      p50: percentile(latencies, 0.5),
      p99: percentile(latencies, 0.99),
      missing: total - delivered,
      uneven: expected.filter(
        (due, index) => (subscribers.counts[index] as number) - (counted[index] as number) !== due,
      ).length,
      repeated: sum("repeated"),
      disordered: pattern.inFlight === 1 ? sum("disordered") : 0,
      gaps: sum("gaps"),
      closed: subscribers.closed,
    };
  }
}
