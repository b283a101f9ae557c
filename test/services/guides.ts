// The guides of this repository: README.md at the top, and one in many folders.
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = new URL("../../", import.meta.url).pathname;

/** Returns the first group of the only place in all guides that matches a pattern. */
export function findInGuides(pattern: RegExp): string {
  const guides = ["README.md", ...globSync(["examples/**/README.md", "src/**/README.md"], { cwd: ROOT })];
  const texts = guides.map((guide) => readFileSync(join(ROOT, guide), "utf8"));
  const [found, ...others] = texts.flatMap((text) => pattern.exec(text)?.[1] ?? []);
  if (found === undefined || others.length > 0)
    throw new Error(
      `guides: ${pattern} has to match in one README.md, and matches in ${found ? 1 + others.length : 0}`,
    );
  return found;
}
