// One soak run: clients come, go, stall and come back on one platform, while a publisher publishes.
import { Random } from "../support/random.ts";
import { freePort, type Platform, startServer, type TestBroker, usesWorkerd } from "../support/servers/server.ts";
import { Client } from "./client.ts";
import { Inspector } from "./inspector.ts";
import { type Measurement, measure } from "./measurement.ts";
import { CHANNELS, STEADY_IDS } from "./names.ts";
import { Publisher } from "./publisher.ts";
import { stall } from "./stallers.ts";
import { Tally } from "./tally.ts";
import { Visitors } from "./visitors.ts";

/** Milliseconds that events are retained. */
const RETENTION_MS = 10_000;
/** Everything that is remembered for a while is full before the first measurement, so it does not grow any more. */
const OPTIONS = {
  // Bun closes an idle stream, to within four seconds, after the time in which the broker gives up and one heartbeat.
  heartbeat: 4_000,
  timeout: 2_000,
  tolerance: 2,
  inboxLinger: 2_000,
  maxConnectionAge: 600_000,
  engine: { logBytes: 2 * 1024 * 1024, maxChannels: 200, idempotencyWindow: 5_000, retention: { age: RETENTION_MS } },
};
/** Equal parts of a run. Each ends with a measurement; the first ones warm up. */
const PARTS = 12;
const WARM_UP_PARTS = 2;
/** Milliseconds of a part that are left for its measurement. */
const MEASURING_MS = 2_000;
/** Milliseconds between two rounds of stalling clients. */
const STALL_PAUSE_MS = 10_000;
/** The longest time to wait for anything, in milliseconds. */
const MAX_WAIT_MS = 30_000;

export interface SoakOptions {
  readonly platform: Platform;
  readonly minutes: number;
  readonly seed: number;
}

/** The result of a run. */
export interface SoakResult {
  readonly agent: string;
  readonly tally: Tally;
  readonly measurements: readonly Measurement[];
  /** Upper bounds of figures. */
  readonly bounds: { readonly logBytes: number; readonly channels: number };
}

/** Runs clients on one platform. */
export async function soak({ platform, minutes, seed }: SoakOptions): Promise<SoakResult> {
  const inspectorPort = usesWorkerd(platform) ? await freePort() : undefined;
  const server = await startServer(platform, inspectorPort === undefined ? {} : { inspectorPort });
  try {
    const broker = await server.createBroker(OPTIONS);
    const tally = new Tally();
    const inspector = inspectorPort === undefined ? undefined : new Inspector(inspectorPort);
    const measurements = await runClients(broker, tally, new Random(seed), minutes, inspector);
    if (server.process.exitCode !== null) tally.fault(`the server ended:\n${server.output}`);
    // Besides channels without a subscriber: the common channel, the shared channels, and the inboxes of steady clients.
    const channels = OPTIONS.engine.maxChannels + 1 + CHANNELS.length + STEADY_IDS.length;
    return { agent: server.agent, tally, measurements, bounds: { logBytes: OPTIONS.engine.logBytes, channels } };
  } finally {
    server.stop();
  }
}

async function runClients(
  broker: TestBroker,
  tally: Tally,
  random: Random,
  minutes: number,
  inspector?: Inspector,
): Promise<Measurement[]> {
  const url = broker.server.url + broker.path("connect");
  const steady = STEADY_IDS.map((id) => {
    const query = new URLSearchParams([["id", id], ...CHANNELS.map((channel) => ["channel", channel])]);
    return new Client(`${url}?${query}`, tally, RETENTION_MS, ["all", id, ...CHANNELS]);
  });
  for (const client of steady) client.connect();
  await until(tally, "a steady client is not connected", () => steady.every(({ isReady }) => isReady));

  const visitors = new Visitors(url, random.fork(), tally, RETENTION_MS);
  const publisher = new Publisher(broker, random.fork(), tally, visitors);
  const measurements: Measurement[] = [];
  const start = performance.now();
  for (let part = 1; part <= PARTS; part++) {
    const end = start + (part / PARTS) * minutes * 60_000;
    publisher.start();
    const running = visitors.run(end - performance.now() - MEASURING_MS);
    await Promise.all([running, stallRepeatedly(broker, tally, end)]);
    // Waits while events are published, because workerd notices a client that left only when it writes.
    await until(tally, "visitors that left are still connected", async () => {
      const { clients, closing } = (await broker.state()).stats;
      return clients === steady.length && closing === 0;
    });
    await publisher.stop();
    await until(tally, "a steady client does not receive the last events", () =>
      steady.every((client) => hasAll(client, publisher)),
    );
    const measured = await measure(broker, tally.connects, steady.length, inspector);
    if (part > WARM_UP_PARTS) measurements.push(measured);
    if (tally.faults.length > 0) break;
  }
  for (const client of steady) client.leave("FIN");
  return measurements;
}

const hasAll = (client: Client, { counts }: Publisher): boolean =>
  [...counts].every(([target, count]) => client.last(target) === count || !client.isReading(target));

/** Stalls clients, at least once, until there is no time left. */
async function stallRepeatedly(broker: TestBroker, tally: Tally, end: number): Promise<void> {
  do {
    await stall(broker, tally);
    const pause = Math.min(STALL_PAUSE_MS, end - performance.now());
    if (pause === STALL_PAUSE_MS) await new Promise((resolve) => setTimeout(resolve, pause));
  } while (performance.now() + STALL_PAUSE_MS < end);
}

/** Waits until a condition holds. Records a fault if that takes too long. */
async function until(tally: Tally, fault: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const limit = performance.now() + MAX_WAIT_MS; !(await holds()); ) {
    if (performance.now() > limit) return tally.fault(fault);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
