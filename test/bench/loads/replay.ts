// Load: clients that come back and receive what they missed.
import { clock } from "../event.ts";
import { type Reading, startMeter } from "../meter.ts";
import { Publisher } from "../publisher.ts";
import { Subscribers } from "../subscribers.ts";

/** Reconnects all clients at once. */
export interface ReplayLoad {
  readonly kind: "replay";
  readonly clients: number;
  /** Events that each client missed. */
  readonly events: number;
  readonly eventLength: number;
}

export interface ReplayOutcome extends Reading {
  readonly kind: "replay";
  readonly delivered: number;
  /** From the first connection to the last delivery. */
  readonly seconds: number;
  readonly missing: number;
  /** Connections that did not receive the expected number of events. */
  readonly uneven: number;
  readonly gaps: number;
}

/** Seconds without a delivery after which missing events count as lost. */
const MAX_SILENCE_S = 2;

/** One client stays connected. The others come back with the last id that this client received before the missed events. */
export async function replay(port: number, { clients, events, eventLength }: ReplayLoad): Promise<ReplayOutcome> {
  const publisher = new Publisher({ port, audience: "all", clients, eventLength });
  const witness = new Subscribers(port, eventLength);
  await witness.open(1, { remembersId: true });
  // Also warms the server up: code that ran once is not compiled yet.
  await publish(200);
  const { lastEventId } = witness;
  if (lastEventId === undefined) throw new Error("replay: the events of the server have no id");
  await publish(events);

  const subscribers = new Subscribers(port, eventLength);
  const read = await startMeter(port);
  const start = clock();
  await subscribers.open(clients, { lastEventId, concurrency: clients });
  await subscribers.waitFor(clients * events, MAX_SILENCE_S);
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
    await witness.waitFor(before + count, MAX_SILENCE_S);
  }
}
