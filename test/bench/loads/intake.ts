import { checkCounting } from "../counter.ts";
import { meter, type Reading } from "../meter.ts";
import { Subscribers } from "../subscribers.ts";

/** What the counting client itself can take, of a server that sends what it has prepared as fast as it is read. */
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
  const order = (path: string): Promise<unknown> => fetch(`http://127.0.0.1:${port}/${path}`, { method: "POST" });
  await order("start");
  const read = await meter(port);
  const before = subscribers.delivered;
  await new Promise((resolve) => setTimeout(resolve, load.seconds * 1000));
  const delivered = subscribers.delivered - before;
  const reading = await read();
  await order("stop");
  return { ...reading, kind: "intake", delivered };
}
