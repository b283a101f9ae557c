import { clock } from "../event.ts";
import { meter, type Reading } from "../meter.ts";
import { Publisher } from "../publisher.ts";
import { Subscribers } from "../subscribers.ts";

/** Clients that were away come back at once. */
export interface ReplayLoad {
  readonly kind: "replay";
  readonly clients: number;
  /** What each of them missed. */
  readonly events: number;
  readonly eventLength: number;
}

export interface ReplayOutcome extends Reading {
  readonly kind: "replay";
  readonly delivered: number;
  /** From the first connection to the last delivery. */
  readonly seconds: number;
  readonly missing: number;
  /** Connections that did not get as many as they should. */
  readonly uneven: number;
  readonly gaps: number;
}

/** Seconds without a delivery after which what is missing counts as lost. */
const PATIENCE = 2;

/** One client stays, and what it was told last before the others' absence is what they come back with. */
export async function replay(port: number, { clients, events, eventLength }: ReplayLoad): Promise<ReplayOutcome> {
  const publisher = new Publisher({ port, audience: "all", clients, eventLength });
  const witness = new Subscribers(port, eventLength);
  await witness.open(1, { remembers: true });
  // Not only for the id: what is run once is not what it will be.
  await publish(200);
  const { lastEventId } = witness;
  if (lastEventId === undefined) throw new Error("replaying: the server gave its events no id");
  await publish(events);

  const subscribers = new Subscribers(port, eventLength);
  const read = await meter(port);
  const start = clock();
  await subscribers.open(clients, { lastEventId, atOnce: clients });
  await subscribers.settled(clients * events, PATIENCE);
  const reading = await read();
  return {
    ...reading,
    kind: "replay",
    delivered: subscribers.delivered,
    seconds: (subscribers.lastAt - start) / 1_000_000,
    missing: clients * events - subscribers.delivered,
    uneven: subscribers.counts.filter((count) => count !== events).length,
    gaps: subscribers.samplers.reduce((all, { gaps }) => all + gaps, 0),
  };

  async function publish(count: number): Promise<void> {
    const before = witness.delivered;
    await publisher.publish({ inFlight: 1, rate: 0, seconds: 30, events: count });
    await witness.settled(before + count, PATIENCE);
  }
}
