// The packages of this folder, which `npm ci --prefix test/adapters` installs.
import { readFileSync } from "node:fs";
import { inject } from "vitest";
import { skipIf } from "../support/skip.ts";

const read = (path: string): { version?: string; devDependencies?: Record<string, string> } => {
  try {
    return JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8"));
  } catch {
    return {};
  }
};
const versionOf = (name: string): string | undefined => read(`node_modules/${name}/package.json`).version;

const missing = Object.entries(read("package.json").devDependencies ?? {}).filter(
  ([name, version]) => versionOf(name) !== version,
);
const CURE = `install the client libraries with "npm ci --prefix test/adapters"; ${missing.length} are missing or of another version, such as ${missing[0]?.[0]}`;
if (missing.length > 0 && process.env.CI === "true") throw new Error(`Testing adapters: ${CURE}`);

/** Options that skip a test without the packages. */
export const needsPackages = skipIf(missing.length > 0, CURE);

/** Loads a module that imports the packages. Tests that are skipped do not use it. */
export async function load<T>(module: () => Promise<T>, ...packages: readonly string[]): Promise<T> {
  if (missing.length > 0) return undefined as T;
  console.log(`${inject("part")} on ${packages.map((name) => `${name} ${versionOf(name)}`).join(", ")}`);
  return module();
}
