import { setTimeout as sleep } from "node:timers/promises";
import { judge, type Life, type Verdict } from "./oracle.ts";
import { type Family, makePlan, type Plan, type Size } from "./plan.ts";
import { needsReplica, World } from "./world.ts";

/** Which run. */
export interface Order {
  readonly seed: number;
  readonly family: Family;
  /** With `memory` all clients are on one instance; with `same-epoch` only they are struck. @default "redis" */
  readonly engine?: "redis" | "memory";
  /** @default 300 */
  readonly clients?: number;
  /** Milliseconds in which faults begin. @default 10_000 */
  readonly ms?: number;
}

/** What came of it. */
export interface Outcome extends Verdict {
  readonly plan: Plan;
  readonly lives: readonly Life[];
  readonly published: number;
  readonly acknowledged: number;
  readonly connections: number;
  readonly epochs: readonly string[];
  readonly answers: Readonly<Record<string, number>>;
  readonly seconds: number;
  /** The end of what each process of each instance printed. */
  readonly tails: Readonly<Record<string, readonly (readonly string[])[]>>;
}

/** Milliseconds that everything may take to be well again after the last fault, and again to be told everywhere. */
const PATIENCE_MS = 25_000;

/** Lives through what a seed says, waits until everything is quiet, and judges. */
export async function runChaos({
  seed,
  family,
  engine = "redis",
  clients = 300,
  ms = 10_000,
}: Order): Promise<Outcome> {
  const size: Size = { clients, instances: 3, ms };
  const plan = planOf(seed, family, engine, size);
  const world = new World(seed, size);
  const { publisher } = world;
  const begin = Date.now();
  const late: string[] = [];
  try {
    await world.open(engine, engine === "redis" && needsReplica(plan, family));
    await world.live(plan, size);
    await until(() => publisher.open === 0);
    if (publisher.open > 0) late.push(`publications ${publisher.unsettled.slice(0, 5)} are not settled`);
    const awaited = await Promise.race([world.finish(), sleep(PATIENCE_MS, undefined, { ref: false })]);
    if (awaited) {
      const lacks = (): string[] =>
        [...awaited].flatMap(([client, numbers]) =>
          numbers.flatMap((number, index) =>
            client.has(number)
              ? []
              : [`${client.name}: is stuck before publication ${number} of ${client.channels[index]}`],
          ),
        );
      await until(() => lacks().length === 0);
      late.push(...lacks());
    } else {
      late.push(`the last publications ${publisher.unsettled.slice(0, 5)} are not settled`);
    }
    late.push(...world.instances.flatMap(({ collapse }) => collapse ?? []));
  } finally {
    await world.close();
  }
  const { published, answers } = publisher;
  const verdict = judge(published, world.clients, world.epochs.names, {
    change: family === "any",
    miss: family === "lossy",
  });
  // Whoever is connected, or was until lately, is known while nothing is lost.
  if (family !== "any") late.push(...publisher.unknown.map((what) => `${what}: its recipient was unknown`));
  return {
    ...verdict,
    faults: [...verdict.faults, ...publisher.faults, ...late],
    plan,
    lives: world.clients,
    published: published.length,
    acknowledged: published.filter(({ id }) => id !== undefined).length,
    connections: world.clients.reduce((sum, { connections }) => sum + connections, 0),
    epochs: world.epochs.names,
    answers,
    seconds: (Date.now() - begin) / 1000,
    tails: Object.fromEntries(world.instances.map(({ runtime, tails }) => [runtime, tails])),
  };
}

/** A log in memory cannot be struck, but by the end of its process, which is the end of its epoch. */
function planOf(seed: number, family: Family, engine: Order["engine"], size: Size): Plan {
  const plan = makePlan(seed, family, size);
  return engine === "redis" ? plan : { ...plan, store: [], instances: family === "any" ? plan.instances : [] };
}

/** Waits until it is so, or for as long as anything may take. */
async function until(holds: () => boolean): Promise<void> {
  const end = Date.now() + PATIENCE_MS;
  while (!holds() && Date.now() < end) await sleep(20);
}

/** One line about a run. */
export function summary({ seed, family }: Order, outcome: Outcome): string {
  const { published, acknowledged, connections, epochs, events, gaps, wasted, silent, faults, seconds, answers } =
    outcome;
  return (
    `seed ${seed} ${family}: ${published} published, ${acknowledged} acknowledged, ${events} events to clients over ${connections} connections, ` +
    `${epochs.length} epochs, ${gaps} gaps (${wasted} kept events in them), ${silent} silent losses, ${faults.length} faults, ` +
    `${seconds.toFixed(1)} s; answers ${JSON.stringify(answers)}`
  );
}
