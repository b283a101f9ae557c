// The mutants of test/mutants fit the present source.
import { existsSync, readFileSync } from "node:fs";
import { transformSync } from "esbuild";
import { expect, test } from "vitest";
import { mutants, testFileOf } from "../mutants/mutants.ts";

const root = new URL("../../", import.meta.url);

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
