// JSR reads deno.json, and npm reads package.json. `npm run jsr` checks the rules of JSR itself.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");
const read = (name: string) => JSON.parse(readFileSync(join(root, name), "utf8"));
const [deno, npm] = [read("deno.json"), read("package.json")];

test("deno.json: has the version and the exports of package.json", () => {
  const sources = Object.entries<{ default: string }>(npm.exports)
    // JSR has the sources only, and no bundle of them.
    .filter(([path]) => path !== "./package.json" && path !== "./browser")
    .map(([path, { default: built }]) => [path, built.replace("/dist/", "/src/").replace(/\.js$/, ".ts")]);
  expect(deno).toMatchObject({ version: npm.version, license: npm.license });
  expect(deno.exports).toEqual(Object.fromEntries(sources));
});

test("deno.json: has the peer dependencies of package.json, in the same versions", () => {
  const { fanwire: _, ...imports } = deno.imports;
  const peers = Object.entries<string>(npm.peerDependencies)
    // No file imports it: it is loaded by its name.
    .filter(([name]) => name !== "better-sqlite3")
    // JSR knows no comparison, such as ">=18".
    .map(([name, range]) => [name, `npm:${name}@${range.startsWith(">=") ? "*" : range}`]);
  expect(imports).toEqual(Object.fromEntries(peers));
});
