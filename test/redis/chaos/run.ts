/**
 * Runs seeds of chaos.
 *
 *     node test/redis/chaos/run.ts [--seed 1] [--count 1] [--family same-epoch|lossy|any] [--engine redis|memory] [--clients 300] [--ms 10000]
 *       [--outputs] [--history client-7]
 *
 * `--outputs` prints the last output of the instances of a failing seed, `--history` everything that a client received. Exits with 1 if
 * a run had a fault.
 */
import { parseArgs } from "node:util";
import { type RunOptions, runChaos, summary } from "./chaos.ts";
import { FAMILIES } from "./plan.ts";

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    count: { type: "string", default: "1" },
    family: { type: "string", default: "same-epoch" },
    engine: { type: "string", default: "redis" },
    clients: { type: "string", default: "300" },
    ms: { type: "string", default: "10000" },
    history: { type: "string", default: "" },
    outputs: { type: "boolean", default: false },
  },
});
const { engine } = values;
const family = FAMILIES.find((name) => name === values.family);
if (!family) throw new TypeError(`--family must be ${FAMILIES.join(" or ")}, not ${values.family}`);
if (engine !== "redis" && engine !== "memory") throw new TypeError(`--engine must be redis or memory, not ${engine}`);

// `process.exit` ends the child processes, and a signal alone would not.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(1));

const first = Number(values.seed);
for (let seed = first; seed < first + Number(values.count); seed++) {
  const options: RunOptions = { seed, family, engine, clients: Number(values.clients), ms: Number(values.ms) };
  const outcome = await runChaos(options);
  console.log(summary(options, outcome));
  const history = outcome.histories.find(
    ({ name }) => name === values.history || outcome.faults[0]?.startsWith(`${name}: `),
  );
  if (history && values.history !== "")
    for (const observation of history.observations) console.log(JSON.stringify(observation));
  if (outcome.faults.length === 0) continue;
  process.exitCode = 1;
  console.log(`  run again: node test/redis/chaos/run.ts --seed ${seed} --family ${family}`);
  for (const fault of outcome.faults.slice(0, 12)) console.log(`  ${fault}`);
  console.log(`  store: ${JSON.stringify(outcome.plan.store)}`);
  console.log(`  instances: ${JSON.stringify(outcome.plan.instances)}`);
  if (values.outputs) console.log(JSON.stringify(outcome.outputs, undefined, 1));
}
process.exit();
