// Load: measures the client itself.
import { checkCounting } from "../counter.ts";
import { type Reading, startMeter } from "../meter.ts";
import { Subscribers } from "../subscribers.ts";

/** Measures how many events the client can count, from a server that sends prepared events as fast as they are read. */
export interface IntakeLoad {
  readonly kind: "intake";
  readonly clients: number;
  readonly eventLength: number;
  readonly seconds: number;
}

export interface IntakeOutcome extends Reading {
  readonly kind: "intake";
  readonly delivered: number;
}

export async function intake(port: number, load: IntakeLoad): Promise<IntakeOutcome> {
  checkCounting(load.eventLength);
  const subscribers = new Subscribers(port, load.eventLength);
  await subscribers.open(load.clients);
  const command = (path: string): Promise<unknown> => fetch(`http://127.0.0.1:${port}/${path}`, { method: "POST" });
  await command("start");
  const read = await startMeter(port);
  const before = subscribers.delivered;
  await new Promise((resolve) => setTimeout(resolve, load.seconds * 1000));
  const delivered = subscribers.delivered - before;
  const reading = await read();
  await command("stop");
  return { ...reading, kind: "intake", delivered };
}
