// The mutants of test/mutants fit the present source, and the program that tries them out tells those that are caught from those that are not.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { transformSync } from "esbuild";
import { expect, test } from "vitest";
import { Checkout } from "../mutants/checkout.ts";
import { type Mutant, mutants, testFileOf } from "../mutants/mutants.ts";
import { format } from "../mutants/outcome.ts";

const root = new URL("../../", import.meta.url);
const program = fileURLToPath(new URL("test/mutants/run.ts", root));

test.each(mutants)("mutant $name: the text that it replaces occurs once in src/$file", (mutant) => {
  const { file, find, replace } = mutant;
  const source = readFileSync(new URL(`src/${file}`, root), "utf8");
  expect(source.split(find)).toHaveLength(2);
  expect(replace).not.toBe(find);
  // A mutant that does not load would prove nothing.
  transformSync(
    source.replace(find, () => replace),
    { loader: "ts" },
  );
  expect(existsSync(new URL(testFileOf(mutant), root))).toBe(true);
});

test("mutants: names are unique", () => {
  expect(new Set(mutants.map(({ name }) => name)).size).toBe(mutants.length);
});

test("mutants: a checkout tells a fault that a test notices from one that no test notices, and from one that hangs", async ({
  onTestFinished,
}) => {
  const checkout = new Checkout();
  onTestFinished(() => checkout.remove());
  const find = "(now() - startMs) / 1000";
  const mutant: Mutant = { name: "any", file: "otel.ts", tests: "monitoring/otel", harm: "any", find, replace: "" };
  const failureOf = async (replace: string, limitSeconds = 60): Promise<string | undefined> =>
    (await checkout.tryOut({ ...mutant, replace }, limitSeconds)).failure;
  expect(await failureOf("now() - startMs")).toContain("test/conformance/monitoring/otel.test.ts: ");
  expect(await failureOf("(now() - startMs) * 0.001")).toBeUndefined();
  expect(await failureOf("(() => { for (;;); })()", 5)).toBe("the run hangs");
  // The source is whole again after each of them.
  expect((await checkout.run("node", [testFileOf(mutant)], 60)).failure).toBeUndefined();
});

test("mutants: the outcome names what was not caught, and counts by room", () => {
  const [first, second] = ["log-fault", "http-fault"].map((name): Mutant => {
    const file = `${name.slice(0, name.indexOf("-"))}/any.ts`;
    return { name, file, tests: "any", find: "a", replace: "b", harm: "Harm." };
  }) as [Mutant, Mutant];
  const text = format([
    { mutant: first, result: "survived", detail: undefined },
    { mutant: second, result: "caught", detail: "a test" },
    { mutant: second, result: "not run", detail: "a reason" },
  ]);
  const rows = text.split("\n").map((line) => line.split(/ {2,}/));
  expect(text).toContain("survived: log-fault (src/log/any.ts). Harm.");
  expect(text).toContain("not run: http-fault (src/http/any.ts), a reason");
  expect(rows).toContainEqual(["log", "0", "1", "0", "0"]);
  expect(rows).toContainEqual(["http", "1", "0", "0", "1"]);
  expect(rows).toContainEqual(["all", "1", "1", "0", "1"]);
});

test("npm run mutants: a seed takes the same sample again, a room takes its mutants, and a wrong option is refused", () => {
  const list = (...options: string[]): readonly [status: number | null, names: readonly string[]] => {
    const { status, stdout } = spawnSync(process.execPath, [program, "--list", ...options], { encoding: "utf8" });
    return [status, [...stdout.matchAll(/^(\S+) \(.*\): /gm)].map(([, name = ""]) => name)];
  };
  const [, sample] = list("--sample", "12", "--seed", "7");
  expect(new Set(sample).size).toBe(12);
  expect(list("--sample", "12", "--seed", "7")).toEqual([0, sample]);
  expect(list("--sample", "12", "--seed", "8")[1]).not.toEqual(sample);
  const ofRoom = mutants.filter(({ file }) => file.startsWith("redis/")).map(({ name }) => name);
  expect(list("--room", "redis")).toEqual([0, ofRoom]);
  expect(list("--only", "cursor-inclusive")).toEqual([0, ["cursor-inclusive"]]);
  for (const wrong of [
    ["--room", "cellar"],
    ["--only", "nothing"],
    ["--sample", "0"],
    ["--seed", "7"],
  ])
    expect(list(...wrong)).toEqual([1, []]);
});
