// Load: publishes events to connections that read.
import { type AudienceName, audience, expectedCounts } from "../audience.ts";
import { checkCounting } from "../counter.ts";
import { type Reading, startMeter, usageOf } from "../meter.ts";
import { type Pattern, Publisher } from "../publisher.ts";
import { percentile } from "../statistics.ts";
import { Subscribers } from "../subscribers.ts";

/** Publishes events in several patterns. */
export interface EventsLoad {
  readonly kind: "events";
  readonly clients: number;
  readonly audience: AudienceName;
  /** Additional connections that never read. */
  readonly stalled: number;
  /** Bytes sent to each connection before the measurement, so that the kernel takes no more for those that never read. */
  readonly filling?: number;
  /** Characters of an event's data. */
  readonly eventLength: number;
  readonly warmup: number;
  readonly seconds: number;
  /** One phase per pattern, on the same connections. */
  readonly patterns: readonly Pattern[];
}

/** The outcome of one phase. */
export interface Phase extends Reading {
  readonly published: number;
  /** Share of the time in which the publishing thread was busy. */
  readonly publisherBusy: number;
  readonly delivered: number;
  /** From the first publish to the last delivery. */
  readonly seconds: number;
  /** Milliseconds from the publisher's call to the subscriber. */
  readonly p50: number;
  readonly p99: number;
  /** Events that did not arrive, on all connections together; negative if more arrived than were published. */
  readonly missing: number;
  /** Connections that did not receive the expected number of events. */
  readonly uneven: number;
  /** Events that arrived again, on the sampled connections. */
  readonly repeated: number;
  /** Events that arrived out of order, on the sampled connections. Not counted with several publishes in flight, because the server may have received them so. */
  readonly reordered: number;
  /** Gaps on the sampled connections. */
  readonly gaps: number;
  /** Connections that ended. */
  readonly closed: number;
}

export interface EventsOutcome {
  readonly kind: "events";
  readonly phases: readonly Phase[];
  /** Growth of the server's memory while all this was published, in bytes. */
  readonly grown: number;
}

/** Pause after the connections are open, in milliseconds. */
const SETTLE_MS = 500;
/** Bytes of an event that only fills queues. */
const FILLER_BYTES = 60_000;
/** Seconds without a delivery after which missing events count as lost. */
const MAX_SILENCE_S = 2;

export async function events(port: number, load: EventsLoad): Promise<EventsOutcome> {
  const { clients, eventLength, warmup, seconds, patterns } = load;
  checkCounting(eventLength);
  const readers = audience(load.audience, clients);
  const subscribers = new Subscribers(port, eventLength);
  const publisher = new Publisher({ port, audience: load.audience, clients, eventLength });
  await subscribers.open(clients, { query: readers.query });
  await subscribers.openStalled(load.stalled, readers.query);
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));

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
    const large = new Publisher({ port, audience: load.audience, clients, eventLength: FILLER_BYTES });
    const count = Math.ceil(filling / FILLER_BYTES);
    await large.publish({ inFlight: 1, rate: 0, seconds: 60, events: count });
    await subscribers.waitFor(count * clients, MAX_SILENCE_S);
  }

  async function phase(pattern: Pattern, seconds: number): Promise<Phase> {
    const counted = [...subscribers.counts];
    const before = subscribers.delivered;
    for (const sampler of subscribers.samplers) sampler.reset();
    const read = await startMeter(port);
    const { first, end, start, busy } = await publisher.publish({ ...pattern, seconds });
    const expected = expectedCounts(readers, clients, first, end);
    const total = expected.reduce((sum, each) => sum + each, 0);
    await subscribers.waitFor(before + total, MAX_SILENCE_S);
    const reading = await read();
    const delivered = subscribers.delivered - before;
    const { samplers } = subscribers;
    const latencies = samplers.flatMap((sampler) => sampler.latencies).sort((a, b) => a - b);
    const sum = (name: "repeated" | "reordered" | "gaps"): number =>
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
        (count, index) => (subscribers.counts[index] as number) - (counted[index] as number) !== count,
      ).length,
      repeated: sum("repeated"),
      reordered: pattern.inFlight === 1 ? sum("reordered") : 0,
      gaps: sum("gaps"),
      closed: subscribers.closed,
    };
  }
}
