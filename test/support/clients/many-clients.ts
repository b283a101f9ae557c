// Many clients at once.
import type { Broker } from "../../../src/index.ts";
import { type ConnectOptions, type TestSetup, turn } from "../test-broker.ts";
import type { Connection } from "./connection.ts";

/** Connects clients that have read their `fanwire-ready` and nothing since. */
export async function connectMany(
  setup: TestSetup,
  broker: Broker,
  count: number,
  optionsOf: (index: number) => ConnectOptions = () => ({}),
): Promise<Connection[]> {
  const clients: Connection[] = [];
  for (let index = 0; index < count; index++) clients.push(await setup.join(broker, optionsOf(index)));
  return clients;
}

/** Lets each client read from now on until it has received an event with this data. Resolves when all of them request a chunk. */
export async function startReading(
  clients: readonly Connection[],
  lastData: string,
): Promise<{ done: Promise<unknown> }> {
  const done = Promise.all(clients.map((client) => client.untilData(lastData)));
  await turn();
  return { done };
}

/** Waits until a flush has found a number of clients blocked. */
export async function untilBlocked(broker: Broker, count: number): Promise<void> {
  while (broker.stats().blocked < count) await turn();
}
