import { existsSync, readFileSync } from "node:fs";
import { transformSync } from "esbuild";
import { expect, test } from "vitest";
import { mutants } from "../mutants/mutants.ts";

const root = new URL("../../", import.meta.url);

test.each(mutants)("the mutant $name fits src/$file: what it looks for is there once", (mutant) => {
  const { file, tests, find, replace } = mutant;
  const source = readFileSync(new URL(`src/${file}`, root), "utf8");
  expect(source.split(find)).toHaveLength(2);
  expect(replace).not.toBe(find);
  // What does not even load shows nothing.
  transformSync(
    source.replace(find, () => replace),
    { loader: "ts" },
  );
  expect(existsSync(new URL(`test/conformance/${tests}.test.ts`, root))).toBe(true);
});

test("mutants have names of their own", () => {
  expect(new Set(mutants.map(({ name }) => name)).size).toBe(mutants.length);
});
