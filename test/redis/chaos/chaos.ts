// Runs chaos: causes the faults of a seed, waits until everything is quiet, and asks the oracle.
import { setTimeout as sleep } from "node:timers/promises";
import { Deployment, needsReplica } from "./deployment.ts";
import { type ClientHistory, type Judgement, judge } from "./oracle.ts";
import { type Family, makePlan, type Plan, type Size } from "./plan.ts";

/** Options of a run. */
export interface RunOptions {
  readonly seed: number;
  readonly family: Family;
  /** With `memory` all clients are on one instance; with `same-epoch` only clients have faults then. @default "redis" */
  readonly engine?: "redis" | "memory";
  /** @default 300 */
  readonly clients?: number;
  /** Milliseconds in which faults begin. @default 10_000 */
  readonly ms?: number;
}

/** The result of a run. */
export interface Outcome extends Judgement {
  readonly plan: Plan;
  readonly histories: readonly ClientHistory[];
  readonly published: number;
  readonly acknowledged: number;
  readonly connections: number;
  /** How often a client joined a channel on an open stream. */
  readonly joins: number;
  readonly epochs: readonly string[];
  readonly answers: Readonly<Record<string, number>>;
  readonly seconds: number;
  /** By runtime, the last lines of the output of each process. */
  readonly outputs: Readonly<Record<string, readonly (readonly string[])[]>>;
}

/** The longest time until everything has recovered from the last fault, and until the last events have arrived. */
const RECOVERY_MS = 25_000;

/** Runs a seed, and judges the result. */
export async function runChaos({
  seed,
  family,
  engine = "redis",
  clients = 300,
  ms = 10_000,
}: RunOptions): Promise<Outcome> {
  const size: Size = { clients, instances: 3, ms };
  const plan = planOf(seed, family, engine, size);
  const deployment = new Deployment(seed, size);
  const { publisher } = deployment;
  const start = Date.now();
  const faults: string[] = [];
  try {
    await deployment.open(engine, engine === "redis" && needsReplica(plan, family));
    await deployment.run(plan, size);
    await until(() => publisher.openCount === 0);
    if (publisher.openCount > 0) faults.push(`publications ${publisher.unsettled.slice(0, 5)} are not settled`);
    const expected = await Promise.race([
      deployment.publishLastEvents(),
      sleep(RECOVERY_MS, undefined, { ref: false }),
    ]);
    if (expected) {
      const missing = (): string[] =>
        [...expected].flatMap(([client, numbers]) =>
          numbers.flatMap((number, index) =>
            client.has(number)
              ? []
              : [`${client.name}: is stuck before publication ${number} of ${client.channels[index]}`],
          ),
        );
      await until(() => missing().length === 0);
      faults.push(...missing());
    } else {
      faults.push(`the last publications ${publisher.unsettled.slice(0, 5)} are not settled`);
    }
    faults.push(...deployment.instances.flatMap(({ unexpectedExit }) => unexpectedExit ?? []));
  } finally {
    await deployment.close();
  }
  const { publications, answers } = publisher;
  const judgement = judge(publications, deployment.clients, deployment.epochs.names, {
    epochChange: family === "any",
    feedLoss: family === "lossy",
  });
  // All recipients are connected, or were lately. They are known as long as the store loses nothing.
  if (family !== "any") faults.push(...publisher.unknownRecipients.map((text) => `${text}: its recipient was unknown`));
  return {
    ...judgement,
    faults: [...judgement.faults, ...publisher.faults, ...faults],
    plan,
    histories: deployment.clients,
    published: publications.length,
    acknowledged: publications.filter(({ id }) => id !== undefined).length,
    connections: deployment.clients.reduce((sum, { connections }) => sum + connections, 0),
    joins: deployment.clients.reduce((sum, { joins }) => sum + joins, 0),
    epochs: deployment.epochs.names,
    answers,
    seconds: (Date.now() - start) / 1000,
    outputs: Object.fromEntries(deployment.instances.map(({ runtime, outputs }) => [runtime, outputs])),
  };
}

/** Makes the plan of a run. A log in memory has no fault but the end of its process, which ends its epoch. */
function planOf(seed: number, family: Family, engine: RunOptions["engine"], size: Size): Plan {
  const plan = makePlan(seed, family, size);
  return engine === "redis" ? plan : { ...plan, store: [], instances: family === "any" ? plan.instances : [] };
}

/** Waits until `holds` returns `true`, or for the longest time that recovery may take. */
async function until(holds: () => boolean): Promise<void> {
  const end = Date.now() + RECOVERY_MS;
  while (!holds() && Date.now() < end) await sleep(20);
}

/** Returns one line about a run. */
export function summary({ seed, family }: RunOptions, outcome: Outcome): string {
  const { published, acknowledged, connections, joins, epochs, events, gaps } = outcome;
  const { coveredEvents, silentLosses, faults, seconds, answers } = outcome;
  return (
    `seed ${seed} ${family}: ${published} published, ${acknowledged} acknowledged, ${events} events to clients over ${connections} connections with ${joins} joins, ` +
    `${epochs.length} epochs, ${gaps} gaps (${coveredEvents} retained events in them), ${silentLosses} silent losses, ${faults.length} faults, ` +
    `${seconds.toFixed(1)} s; answers ${JSON.stringify(answers)}`
  );
}
