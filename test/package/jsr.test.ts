import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

// JSR reads deno.json, npm reads package.json. `npm run jsr` checks what JSR itself would refuse.

const root = join(import.meta.dirname, "../..");
const read = (name: string) => JSON.parse(readFileSync(join(root, name), "utf8"));
const [deno, npm] = [read("deno.json"), read("package.json")];

test("JSR gets the version and the exports that npm gets", () => {
  const sources = Object.entries<{ default: string }>(npm.exports)
    .filter(([path]) => path !== "./package.json")
    .map(([path, { default: built }]) => [path, built.replace("/dist/", "/src/").replace(/\.js$/, ".ts")]);
  expect(deno).toMatchObject({ version: npm.version, license: npm.license });
  expect(deno.exports).toEqual(Object.fromEntries(sources));
});

test("JSR gets the peer dependencies in the versions that npm gets", () => {
  const { fanwire: _, ...imports } = deno.imports;
  const peers = Object.entries(npm.peerDependencies).map(([name, range]) => [name, `npm:${name}@${range}`]);
  expect(imports).toEqual(Object.fromEntries(peers));
});
