/**
 * Breaks the source in small ways, one at a time, and shows that a test fails each time.
 *
 *     npm run mutants -- [--room delivery,log] [--only gap-id-off-by-one,cursor-inclusive] [--sample 12 [--seed 7]] [--wide] [--list]
 *
 * Each mutant names the file of tests that has to catch it, and only that file runs, up to the first failure. Two mutants are tried out at a
 * time, each in a copy of the checkout. Before that, the same files have to pass without a mutant. `--sample` takes some mutants at random,
 * and prints the seed that takes the same ones again. `--wide` tries the survivors of conformance tests on all of these tests, to find the file
 * that they should name. `--list` prints the mutants. The exit code is 1 if a mutant survived or could not be tried out, unless only because
 * the machine lacks a program, such as Redis.
 */
import { parseArgs } from "node:util";
import { Random } from "../support/random.ts";
import { Checkout } from "./checkout.ts";
import { fits, type Mode, type Mutant, modeOf, mutants, roomOf, testFileOf } from "./mutants.ts";
import { format, type Outcome } from "./outcome.ts";

const LANES = 2;
/** How long a run without a mutant may take. */
const UNCHANGED_LIMIT_S = 1_800;
/** A mutant hangs if its run takes this long, and this many times as long as the same tests without it. */
const MIN_LIMIT_S = 30;
const HANG_FACTOR = 4;

const { values } = parseArgs({
  options: {
    room: { type: "string" },
    only: { type: "string" },
    sample: { type: "string" },
    seed: { type: "string" },
    wide: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
  },
});

// `Checkout` removes its copy and ends its processes on "exit", which a signal alone does not emit.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(1));

const chosen = choose();
if (values.list) {
  for (const { name, file, harm } of chosen) console.log(`${name} (${file}): ${harm}`);
} else {
  const outcomes = await tryAll();
  console.log(`\n${format(outcomes)}`);
  const isGood = ({ result }: Outcome): boolean => result === "caught" || result === "skipped";
  // A run in which nothing was tried out has shown nothing.
  process.exitCode = outcomes.every(isGood) && outcomes.some(({ result }) => result === "caught") ? 0 : 1;
}

/** Returns the mutants that the command line asks for. */
function choose(): readonly Mutant[] {
  const rooms = namesIn("room", mutants.map(roomOf));
  const names = namesIn(
    "only",
    mutants.map(({ name }) => name),
  );
  const asked = mutants.filter((mutant) => (names?.has(mutant.name) ?? true) && (rooms?.has(roomOf(mutant)) ?? true));
  const count = numberIn("sample", 1);
  const seed = numberIn("seed", 0);
  if (count === undefined) {
    if (seed !== undefined) throw new TypeError("mutants: --seed has no effect without --sample; add --sample 12");
    return asked;
  }
  const used = seed ?? Math.floor(Math.random() * 1_000_000);
  console.log(`a sample of ${count} with seed ${used}; for the same again: --sample ${count} --seed ${used}`);
  return new Random(used).sample(asked, count);
}

function namesIn(option: "room" | "only", known: readonly string[]): ReadonlySet<string> | undefined {
  const names = values[option]?.split(",");
  const unknown = names?.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new TypeError(`mutants: --${option} "${unknown}" is unknown; --list prints all`);
  return names && new Set(names);
}

function numberIn(option: "sample" | "seed", least: number): number | undefined {
  const text = values[option];
  if (text === undefined) return undefined;
  const number = Number(text);
  if (!Number.isSafeInteger(number) || number < least)
    throw new TypeError(`mutants: --${option} must be a whole number from ${least}, not "${text}"`);
  return number;
}

/** Tries every chosen mutant out. Prints each outcome at once, and returns all of them. */
async function tryAll(): Promise<readonly Outcome[]> {
  const lanes = Array.from({ length: LANES }, () => new Checkout());
  const outcomes: Outcome[] = [];
  const settle = (mutant: Mutant, result: Outcome["result"], detail?: string, seconds?: number): void => {
    outcomes.push({ mutant, result, detail });
    const time = seconds === undefined ? "       " : `${seconds.toFixed(1).padStart(5)} s`;
    console.log(`${result.padEnd(8)} ${time}  ${mutant.name}${detail === undefined ? "" : `: ${detail}`}`);
  };

  const unchanged = await runUnchanged(lanes);
  const ready = chosen.filter((mutant) => {
    const tests = unchanged.get(testFileOf(mutant));
    if (!fits(mutant)) settle(mutant, "not run", `its text to find does not occur exactly once in src/${mutant.file}`);
    else if (tests?.failure !== undefined) settle(mutant, "not run", `fails without it: ${tests.failure}`);
    else if (!tests?.hasRun) settle(mutant, "skipped", `all tests of ${testFileOf(mutant)} are skipped here`);
    else return true;
    return false;
  });
  const usualSeconds = (mutant: Mutant): number => unchanged.get(testFileOf(mutant))?.seconds ?? 0;
  // Long ones first, so that no lane is left with one at the end.
  ready.sort((a, b) => usualSeconds(b) - usualSeconds(a));
  await share(ready, lanes, async (mutant, lane) => {
    const limit = MIN_LIMIT_S + HANG_FACTOR * usualSeconds(mutant);
    const { failure, seconds } = await lane.tryOut(mutant, limit);
    if (failure !== undefined) return settle(mutant, "caught", failure, seconds);
    const wide =
      values.wide && modeOf(mutant) === "node" ? await lane.tryOut(mutant, UNCHANGED_LIMIT_S, true) : undefined;
    settle(mutant, "survived", wide?.failure && `but not ${wide.failure}`, seconds);
  });
  return outcomes;
}

type TestsResult = { readonly failure: string | undefined; readonly hasRun: boolean; readonly seconds: number };

/** Runs the files of tests of all chosen mutants without a mutant, because every mutant would seem to be caught by one that fails anyway. */
async function runUnchanged(lanes: readonly Checkout[]): Promise<ReadonlyMap<string, TestsResult>> {
  const filesOf = new Map<Mode, Set<string>>();
  for (const mutant of chosen) {
    const files = filesOf.get(modeOf(mutant)) ?? new Set();
    filesOf.set(modeOf(mutant), files.add(testFileOf(mutant)));
  }
  const all = new Map<string, TestsResult>();
  await share([...filesOf], lanes, async ([mode, names], lane) => {
    const { failure, seconds, files } = await lane.run(mode, [...names], UNCHANGED_LIMIT_S);
    const failed = [...names].filter((name) => files.get(name)?.failure !== undefined);
    // An error outside of a test belongs to no file.
    const suspects = failure !== undefined && failed.length === 0 ? names : new Set(failed);
    for (const name of names) {
      const result = suspects.has(name) ? undefined : files.get(name);
      // By itself once more, because on a busy machine a test may fail beside others.
      all.set(name, result ?? (await runAlone(mode, name, lane)));
    }
    const isGood = [...names].every((name) => all.get(name)?.failure === undefined);
    console.log(
      `${isGood ? "passed  " : "FAILED  "} ${seconds.toFixed(1).padStart(5)} s  mode ${mode} without a mutant`,
    );
  });
  return all;
}

async function runAlone(mode: Mode, name: string, lane: Checkout): Promise<TestsResult> {
  const { failure, seconds, files } = await lane.run(mode, [name], UNCHANGED_LIMIT_S);
  return { hasRun: files.get(name)?.hasRun ?? false, failure, seconds };
}

/** Gives the items to the lanes, one after another. */
async function share<T>(
  items: readonly T[],
  lanes: readonly Checkout[],
  task: (item: T, lane: Checkout) => Promise<void>,
): Promise<void> {
  const rest = items.values();
  await Promise.all(
    lanes.map(async (lane) => {
      for (const item of rest) await task(item, lane);
    }),
  );
}
