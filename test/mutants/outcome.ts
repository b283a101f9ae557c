// Formats what became of mutants.
import { readdirSync } from "node:fs";
import { table } from "../bench/statistics.ts";
import { type Mutant, mutants, roomOf } from "./mutants.ts";

/** What became of a mutant. */
export interface Outcome {
  readonly mutant: Mutant;
  /** `skipped` if the machine lacks a program that the tests need, `not run` if something is wrong. */
  readonly result: "caught" | "survived" | "skipped" | "not run";
  /** The test that caught the mutant, or the reason. */
  readonly detail: string | undefined;
}

const RESULTS = ["caught", "survived", "skipped", "not run"] as const;

const SOURCE = new URL("../../src/", import.meta.url);

/** Returns those that were not caught, each with its harm or its reason, and the counts of each room. */
export function format(outcomes: readonly Outcome[]): string {
  const counted = (of: readonly Outcome[]): string[] =>
    RESULTS.map((result) => String(of.filter((outcome) => outcome.result === result).length));
  const rooms = [...new Set(outcomes.map(({ mutant }) => roomOf(mutant)))].sort();
  return [
    ...outcomes.flatMap(({ mutant: { name, file, harm }, result, detail = "" }) => {
      if (result === "caught") return [];
      return `${result}: ${name} (src/${file})${detail && `, ${detail}`}${result === "survived" ? `. ${harm}` : ""}`;
    }),
    "",
    table([
      ["room", ...RESULTS],
      ...rooms.map((room) => [room, ...counted(outcomes.filter(({ mutant }) => roomOf(mutant) === room))]),
      ["all", ...counted(outcomes)],
    ]),
    ...(outcomes.length === mutants.length ? [`rooms without a mutant: ${roomsWithout().join(", ") || "none"}`] : []),
  ].join("\n");
}

function roomsWithout(): string[] {
  const broken = new Set(mutants.map(roomOf));
  return readdirSync(SOURCE, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() && !broken.has(entry.name) ? entry.name : [],
  );
}
