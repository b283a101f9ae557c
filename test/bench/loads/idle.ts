// Load: connections that receive no events.
import { type Reading, startMeter, usageOf } from "../meter.ts";
import { Subscribers } from "../subscribers.ts";

/** Opens connections and publishes nothing. */
export interface IdleLoad {
  readonly kind: "idle";
  readonly clients: number;
  /** Seconds of the measurement, a multiple of the heartbeat interval. */
  readonly seconds: number;
}

export interface IdleOutcome extends Reading {
  readonly kind: "idle";
  /** Bytes of the server's memory per connection. */
  readonly resident: number;
  /** Bytes of those in the JavaScript heap, where the runtime tells them. */
  readonly heap: number | undefined;
  /** Connections that ended. */
  readonly closed: number;
}

/** Pause before the server's memory is read, in milliseconds. */
const SETTLE_MS = 1_000;
/** Connections opened before the others and not counted, so that what a server allocates once is not counted either. */
const WARM_UP_CLIENTS = 200;

export async function idle(port: number, { clients, seconds }: IdleLoad): Promise<IdleOutcome> {
  const subscribers = new Subscribers(port, 120);
  await subscribers.open(WARM_UP_CLIENTS);
  await wait(SETTLE_MS);
  const empty = await usageOf(port, true);
  await subscribers.open(clients - WARM_UP_CLIENTS);
  await wait(SETTLE_MS);
  const full = await usageOf(port, true);
  const each = (after: number, before: number): number => (after - before) / (clients - WARM_UP_CLIENTS);
  const read = await startMeter(port);
  await wait(seconds * 1000);
  const reading = await read();
  return {
    ...reading,
    kind: "idle",
    resident: each(full.rss, empty.rss),
    heap: full.heap === undefined || empty.heap === undefined ? undefined : each(full.heap, empty.heap),
    closed: subscribers.closed,
  };
}

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
