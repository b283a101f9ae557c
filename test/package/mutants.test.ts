import { existsSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { mutants } from "../mutants/mutants.ts";

const root = new URL("../../", import.meta.url);

test.each(mutants)("the mutant $name fits src/$file: what it looks for is there once", (mutant) => {
  const { file, tests, find, replace } = mutant;
  expect(readFileSync(new URL(`src/${file}`, root), "utf8").split(find)).toHaveLength(2);
  expect(replace).not.toBe(find);
  expect(existsSync(new URL(`test/conformance/${tests}.test.ts`, root))).toBe(true);
});

test("mutants have names of their own", () => {
  expect(new Set(mutants.map(({ name }) => name)).size).toBe(mutants.length);
});
