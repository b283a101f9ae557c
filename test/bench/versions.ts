// Versions of installed packages.
import { readFileSync } from "node:fs";

/** Returns the version of an installed package. */
export const version = (name: string): string =>
  JSON.parse(readFileSync(new URL(`../../node_modules/${name}/package.json`, import.meta.url), "utf8")).version;
