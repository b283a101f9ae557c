/**
 * Breaks the source in small ways, one at a time, and shows that a test fails each time.
 *
 *     node test/mutants/run.ts [--only gap-id-off-by-one,cursor-inclusive] [--wire] [--list]
 *
 * Works in a copy of the checkout. The conformance tests run on Node, first without a change and then once per mutant, up to the first failure:
 * the file that most likely catches the mutant, then all files if it does not. Of the suites `redis`, which needs a Redis server, and `workers`
 * only the files that the mutants name run. A good result names a test of the feature that the mutant breaks. `--wire` tries the survivors of
 * the conformance tests over real sockets as well. `--list` prints the mutants. The exit code is 1 if a mutant survived or no longer fits
 * the source.
 */
import { parseArgs } from "node:util";
import { Checkout, type Mode, type Result } from "./checkout.ts";
import { type Mutant, mutants, testFileOf } from "./mutants.ts";

const { values } = parseArgs({
  options: {
    only: { type: "string" },
    wire: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
  },
});
const only = values.only?.split(",");
const unknown = (only ?? []).filter((name) => !mutants.some((mutant) => mutant.name === name));
if (unknown.length > 0) throw new Error(`mutants: unknown name ${unknown.join(", ")}; --list prints all names`);
const chosen = mutants.filter(({ name }) => only?.includes(name) ?? true);

// `Checkout` removes its copy and ends its processes on "exit", which a signal alone does not emit.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(1));

if (values.list) for (const { name, file, harm } of chosen) console.log(`${name} (${file}): ${harm}`);
else process.exitCode = (await tryAll()) ? 0 : 1;

/** Tries every chosen mutant. Returns whether all were caught. */
async function tryAll(): Promise<boolean> {
  const checkout = new Checkout();
  let survivors: Mutant[] = [];
  const misfits: Mutant[] = [];
  for (const suite of [undefined, "workers", "redis"] as const) {
    const ofSuite = chosen.filter((mutant) => mutant.suite === suite);
    if (ofSuite.length === 0) continue;
    const files = suite === undefined ? [] : [...new Set(ofSuite.map(testFileOf))];
    await checkUnchanged(checkout, suite ?? "node", files);
    for (const mutant of ofSuite) {
      if (!checkout.fits(mutant)) misfits.push(mutant);
      else if (!report(mutant, await checkout.tryOut(mutant, suite ?? "node"))) survivors.push(mutant);
    }
  }
  if (values.wire && survivors.some(({ suite }) => suite === undefined)) {
    await checkUnchanged(checkout, "wire");
    const stillAlive: Mutant[] = [];
    for (const mutant of survivors) {
      const isCaught = mutant.suite === undefined && report(mutant, await checkout.tryOut(mutant, "wire"));
      if (!isCaught) stillAlive.push(mutant);
    }
    survivors = stillAlive;
  }
  for (const { name, harm } of survivors) console.log(`survived: ${name}. ${harm}`);
  for (const { name, file } of misfits)
    console.log(`does not fit: ${name}. The text to find does not occur exactly once in src/${file}.`);
  const caught = chosen.length - survivors.length - misfits.length;
  console.log(
    `${chosen.length} mutants: ${caught} caught, ${survivors.length} survived, ${misfits.length} do not fit the source`,
  );
  return caught === chosen.length;
}

/** Checks that the tests pass without a mutant, because every mutant would seem to be caught otherwise. */
async function checkUnchanged(checkout: Checkout, mode: Mode, files: readonly string[] = []): Promise<void> {
  const { caughtBy, seconds } = await checkout.run(mode, files);
  if (caughtBy !== undefined) throw new Error(`mutants: mode ${mode} fails without a mutant: ${caughtBy}`);
  console.log(`passed    ${seconds.toFixed(1).padStart(6)} s  mode ${mode}, unchanged source`);
}

/** Prints the result of one mutant. Returns whether it was caught. */
function report({ name }: Mutant, { caughtBy, seconds }: Result): boolean {
  const outcome = caughtBy === undefined ? "SURVIVED" : "caught  ";
  console.log(
    `${outcome}  ${seconds.toFixed(1).padStart(6)} s  ${name}${caughtBy === undefined ? "" : `: ${caughtBy}`}`,
  );
  return caughtBy !== undefined;
}
