import { meter, type Reading, usageOf } from "../meter.ts";
import { Subscribers } from "../subscribers.ts";

/** Connections to which nothing is published. */
export interface IdleLoad {
  readonly kind: "idle";
  readonly clients: number;
  /** How long they are watched; a multiple of the time between two heartbeats. */
  readonly seconds: number;
}

export interface IdleOutcome extends Reading {
  readonly kind: "idle";
  /** Bytes of the server's memory for each connection. */
  readonly resident: number;
  /** Of them what JavaScript holds, where that can be known. */
  readonly heap: number | undefined;
  /** Connections that ended. */
  readonly closed: number;
}

/** How long the server is left alone before its memory is read, in milliseconds. */
const SETTLE = 1_000;
/** Connections before those that count, so that what a server makes once is not counted. */
const BEFORE = 200;

export async function idle(port: number, { clients, seconds }: IdleLoad): Promise<IdleOutcome> {
  const subscribers = new Subscribers(port, 120);
  await subscribers.open(BEFORE);
  await wait(SETTLE);
  const empty = await usageOf(port, true);
  await subscribers.open(clients - BEFORE);
  await wait(SETTLE);
  const full = await usageOf(port, true);
  const each = (after: number, before: number): number => (after - before) / (clients - BEFORE);
  const read = await meter(port);
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
