import { Random } from "../redis/chaos/random.ts";
import { freePort, onWorkerd, type Platform, type Stage, startServer } from "../support/servers/server.ts";
import { Guests } from "./guests.ts";
import { Inspector } from "./inspector.ts";
import { type Mark, mark } from "./marks.ts";
import { CHANNELS, STEADY_IDS } from "./names.ts";
import { Publisher } from "./publisher.ts";
import { stall } from "./stallers.ts";
import { Tally } from "./tally.ts";
import { Visitor } from "./visitor.ts";

/** Milliseconds that events are kept. */
const RETENTION = 10_000;
/** Everything that is remembered for a while is full before the first mark: it grows no more because of that. */
const OPTIONS = {
  // Bun cuts what is quiet for longer than the time after which the broker does and a heartbeat, to within four seconds.
  heartbeat: 4_000,
  timeout: 2_000,
  tolerance: 2,
  inboxLinger: 2_000,
  maxAge: 600_000,
  engine: { logBytes: 2 * 1024 * 1024, maxChannels: 200, idempotencyWindow: 5_000, retention: { age: RETENTION } },
};
/** Equal parts of a run, each ended by a mark; the first of them warm up. */
const PARTS = 12;
const WARM_UP = 2;
/** Milliseconds of a part that are left for its mark. */
const MARKING = 2_000;
/** Milliseconds between two times that clients stall. */
const STALL_PAUSE = 10_000;
/** Milliseconds that something may take that is waited for. */
const PATIENCE = 30_000;

export interface Order {
  readonly platform: Platform;
  readonly minutes: number;
  readonly seed: number;
}

/** What became of it. */
export interface Outcome {
  readonly agent: string;
  readonly tally: Tally;
  readonly marks: readonly Mark[];
  /** What is never more than its bound. */
  readonly bounds: { readonly logBytes: number; readonly channels: number };
}

/** Has clients come and go on one platform. */
export async function soak({ platform, minutes, seed }: Order): Promise<Outcome> {
  const inspectAt = onWorkerd(platform) ? await freePort() : undefined;
  const server = await startServer(platform, inspectAt === undefined ? {} : { inspectAt });
  try {
    const stage = await server.stage(OPTIONS);
    const tally = new Tally();
    const inspector = inspectAt === undefined ? undefined : new Inspector(inspectAt);
    const marks = await live(stage, tally, new Random(seed), minutes, inspector);
    if (server.process.exitCode !== null) tally.fault(`the server ended:\n${server.output}`);
    // Besides those that nobody reads: the common one, the channels, and inboxes of those who stay.
    const channels = OPTIONS.engine.maxChannels + 1 + CHANNELS.length + STEADY_IDS.length;
    return { agent: server.agent, tally, marks, bounds: { logBytes: OPTIONS.engine.logBytes, channels } };
  } finally {
    server.stop();
  }
}

async function live(
  stage: Stage,
  tally: Tally,
  random: Random,
  minutes: number,
  inspector?: Inspector,
): Promise<Mark[]> {
  const url = stage.server.url + stage.path("connect");
  const steady = STEADY_IDS.map((id) => {
    const query = new URLSearchParams([["id", id], ...CHANNELS.map((channel) => ["channel", channel])]);
    return new Visitor(`${url}?${query}`, tally, RETENTION, ["all", id, ...CHANNELS]);
  });
  for (const visitor of steady) visitor.connect();
  await until(tally, "a first client is not answered", () => steady.every(({ isReady }) => isReady));

  const guests = new Guests(url, random.fork(), tally, RETENTION);
  const publisher = new Publisher(stage, random.fork(), tally, guests);
  const marks: Mark[] = [];
  const began = performance.now();
  for (let part = 1; part <= PARTS; part++) {
    const end = began + (part / PARTS) * minutes * 60_000;
    publisher.start();
    const churned = guests.churn(end - performance.now() - MARKING);
    await Promise.all([churned, stallAgainAndAgain(stage, tally, end)]);
    // While something is published: workerd finds out who has gone when it writes.
    await until(tally, "guests that have gone are connected", async () => {
      const { clients, closing } = (await stage.state()).stats;
      return clients === steady.length && closing === 0;
    });
    await publisher.stop();
    await until(tally, "somebody misses the last events", () => steady.every((visitor) => hasAll(visitor, publisher)));
    const made = await mark(stage, tally.connects, steady.length, inspector);
    if (part > WARM_UP) marks.push(made);
    if (tally.faults.length > 0) break;
  }
  for (const visitor of steady) visitor.leave("FIN");
  return marks;
}

const hasAll = (visitor: Visitor, { counts }: Publisher): boolean =>
  [...counts].every(([target, count]) => visitor.last(target) === count || !visitor.follows(target));

/** At least once, until there is no time left for it. */
async function stallAgainAndAgain(stage: Stage, tally: Tally, end: number): Promise<void> {
  do {
    await stall(stage, tally);
    const pause = Math.min(STALL_PAUSE, end - performance.now());
    if (pause === STALL_PAUSE) await new Promise((resolve) => setTimeout(resolve, pause));
  } while (performance.now() + STALL_PAUSE < end);
}

/** Waits until it is so; that it does not become so is a fault. */
async function until(tally: Tally, otherwise: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const limit = performance.now() + PATIENCE; !(await holds()); ) {
    if (performance.now() > limit) return tally.fault(otherwise);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
