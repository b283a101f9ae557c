// Prints the matrix as Markdown tables, as README.md has them: `npx node test/mounts/table.ts`.
import { readFileSync } from "node:fs";
import { CHECK_NAMES } from "./checks.ts";
import { expectedOf } from "./mount-run.ts";
import { fetchMounts, type Mount, nodeMounts } from "./mounts.ts";

const wantedIn = (path: string): Record<string, string> =>
  JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8")).devDependencies;
const wanted: Record<string, string | undefined> = {
  ...wantedIn("package.json"),
  "": wantedIn("../../package.json").node,
};

/** Returns the rows of a table: a head, and one for each mount. */
export const rowsOf = (mounts: readonly Mount[]): string[][] => [
  ["mount", "version", ...CHECK_NAMES],
  ...mounts.map((mount) => [
    mount.name,
    wanted[mount.dependency]?.replace(/.*@/, "") ?? "",
    ...CHECK_NAMES.map((check) => expectedOf(mount, check)),
  ]),
];

function markdown([head = [], ...rows]: string[][]): string {
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n");
}

if (import.meta.main) for (const mounts of [nodeMounts, fetchMounts]) console.log(`${markdown(rowsOf(mounts))}\n`);
