/**
 * Breaks the source in small ways, one at a time, and shows that the suite notices.
 *
 *     node test/mutants/run.ts [--only gap-id-off-by-one,cursor-inclusive] [--wire] [--list]
 *
 * In a copy of the checkout the conformance files are run on Node, first without a change and then with each, up to the first failure: the file
 * that most likely notices, and all of them if it does not. What is said to have caught one is to be a test of what it breaks.
 * `--wire` has those that survive tried over real sockets as well. Exits 1 if one survived or does not fit the source any more.
 */
import { parseArgs } from "node:util";
import { Checkout, type Verdict } from "./checkout.ts";
import { type Mutant, mutants } from "./mutants.ts";

const { values } = parseArgs({
  options: {
    only: { type: "string" },
    wire: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
  },
});
const only = values.only?.split(",");
const unknown = (only ?? []).filter((name) => !mutants.some((mutant) => mutant.name === name));
if (unknown.length > 0) throw new Error(`mutants: there is no ${unknown.join(", ")}`);
const chosen = mutants.filter(({ name }) => only?.includes(name) ?? true);

// What it started must not outlive it.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(1));

if (values.list) for (const { name, file, why } of chosen) console.log(`${name} (${file}): ${why}`);
else process.exitCode = (await tryAll()) ? 0 : 1;

/** Whether every one was caught. */
async function tryAll(): Promise<boolean> {
  const checkout = new Checkout();
  await mustPass(checkout, "node");
  const survivors: Mutant[] = [];
  const unfit: Mutant[] = [];
  for (const mutant of chosen) {
    if (!checkout.fits(mutant)) unfit.push(mutant);
    else if (!say(mutant, await checkout.tryOut(mutant, "node"))) survivors.push(mutant);
  }
  let left = survivors;
  if (values.wire && survivors.length > 0) {
    await mustPass(checkout, "wire");
    left = [];
    for (const mutant of survivors) if (!say(mutant, await checkout.tryOut(mutant, "wire"))) left.push(mutant);
  }
  for (const { name, why } of left) console.log(`survived: ${name}. ${why}`);
  for (const { name, file } of unfit)
    console.log(`does not fit: ${name}. What it looks for is not once in src/${file}.`);
  const caught = chosen.length - left.length - unfit.length;
  console.log(`${chosen.length} mutants: ${caught} caught, ${left.length} survived, ${unfit.length} do not fit`);
  return caught === chosen.length;
}

/** Else whatever is tried would seem to be caught. */
async function mustPass(checkout: Checkout, mode: "node" | "wire"): Promise<void> {
  const { caughtBy, seconds } = await checkout.run(mode);
  if (caughtBy !== undefined) throw new Error(`mutants: without any, ${mode} fails: ${caughtBy}`);
  console.log(`passed    ${seconds.toFixed(1).padStart(6)} s  ${mode}, without a change`);
}

/** Prints what became of one; whether it was caught. */
function say({ name }: Mutant, { caughtBy, seconds }: Verdict): boolean {
  const word = caughtBy === undefined ? "SURVIVED" : "caught  ";
  console.log(`${word}  ${seconds.toFixed(1).padStart(6)} s  ${name}${caughtBy === undefined ? "" : `: ${caughtBy}`}`);
  return caughtBy !== undefined;
}
