// Prints the matrix as a Markdown table, as README.md has it: `node test/mounts/table.ts`.
import { CHECK_NAMES } from "./checks.ts";
import { expectedOf } from "./mount-run.ts";
import { fetchMounts, type Mount } from "./mounts.ts";

/** Returns the rows of the table: a head, and one for each mount. */
export const rowsOf = (mounts: readonly Mount[]): string[][] => [
  ["mount", ...CHECK_NAMES],
  ...mounts.map((mount) => [mount.name, ...CHECK_NAMES.map((check) => expectedOf(mount, check))]),
];

function markdown([head = [], ...rows]: string[][]): string {
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n");
}

if (import.meta.main) console.log(markdown(rowsOf(fetchMounts)));
