import type { Broker } from "../../../src/index.ts";
import { type Scene, turn, type Wish } from "../test-broker.ts";
import type { Connection } from "./connection.ts";

/** Connects clients that have read that they are connected, and nothing since. */
export async function crowd(
  stage: Scene,
  broker: Broker,
  count: number,
  wish: (index: number) => Wish = () => ({}),
): Promise<Connection[]> {
  const clients: Connection[] = [];
  for (let index = 0; index < count; index++) clients.push(await stage.join(broker, wish(index)));
  return clients;
}

/** Has each client want more from now on, and read until it has seen some data; resolves when all of them want more. */
export async function wanting(clients: readonly Connection[], last: string): Promise<{ done: Promise<unknown> }> {
  const done = Promise.all(clients.map((client) => client.untilData(last)));
  await turn();
  return { done };
}

/** Waits until a flush has found so many clients blocked. */
export async function untilBlocked(broker: Broker, count: number): Promise<void> {
  while (broker.stats().blocked < count) await turn();
}
