/**
 * Lives through seeds of chaos, or through one again.
 *
 *     node test/redis/chaos/run.ts [--seed 1] [--count 1] [--family same-epoch|lossy|any] [--engine redis|memory] [--clients 300] [--ms 10000] [--tails] [--life client-7]
 *
 * `--tails` prints what the instances of a failing seed said last, `--life` what a client saw. Exits 1 if anything was wrong.
 */
import { parseArgs } from "node:util";
import { type Order, runChaos, summary } from "./chaos.ts";
import { FAMILIES } from "./plan.ts";

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    count: { type: "string", default: "1" },
    family: { type: "string", default: "same-epoch" },
    engine: { type: "string", default: "redis" },
    clients: { type: "string", default: "300" },
    ms: { type: "string", default: "10000" },
    life: { type: "string", default: "" },
    tails: { type: "boolean", default: false },
  },
});
const { engine } = values;
const family = FAMILIES.find((name) => name === values.family);
if (!family) throw new TypeError(`--family is ${FAMILIES.join(" or ")}, not ${values.family}`);
if (engine !== "redis" && engine !== "memory") throw new TypeError(`--engine is redis or memory, not ${engine}`);

// What it started must not outlive it.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(1));

const first = Number(values.seed);
for (let seed = first; seed < first + Number(values.count); seed++) {
  const order: Order = { seed, family, engine, clients: Number(values.clients), ms: Number(values.ms) };
  const outcome = await runChaos(order);
  console.log(summary(order, outcome));
  const life = outcome.lives.find(({ name }) => name === values.life || outcome.faults[0]?.startsWith(`${name}: `));
  if (life && values.life !== "") for (const sight of life.seen) console.log(JSON.stringify(sight));
  if (outcome.faults.length === 0) continue;
  process.exitCode = 1;
  console.log(`  again: node test/redis/chaos/run.ts --seed ${seed} --family ${family}`);
  for (const fault of outcome.faults.slice(0, 12)) console.log(`  ${fault}`);
  console.log(`  store: ${JSON.stringify(outcome.plan.store)}`);
  console.log(`  instances: ${JSON.stringify(outcome.plan.instances)}`);
  if (values.tails) console.log(JSON.stringify(outcome.tails, undefined, 1));
}
process.exit();
