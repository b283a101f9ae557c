// Power failures: writes that were not synced are lost, all of them, the last of them, or any of them, at 1,000 random moments.
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, inject, test } from "vitest";
import { createBroker } from "../../src/index.ts";
import { sqliteEngine } from "../../src/sqlite/index.ts";
import { Random } from "../support/random.ts";
import { openRunsOf } from "../support/runs/sessions.ts";
import { needsCompiler } from "./support/compiler.ts";
import { restoreImage } from "./support/image.ts";
import { findRunFaults } from "./support/power-runs.ts";

type Durability = "power" | "process";

const node = new URL("../../node_modules/.bin/node", import.meta.url).pathname;
const source = new URL("./power-shim.c", import.meta.url).pathname;
const child = new URL("./support/power-child.ts", import.meta.url).pathname;
const seed = Number.parseInt(inject("seed") || "1", 10);
// A fault, such as positions that are not reserved, shows within a few of them. `HISTORIES=1000` tries more.
const MOMENTS = Number(inject("histories") || 400);
/** Moments of one process. Each one begins with an empty file. */
const PER_PROCESS = 50;

/** An event that was answered or delivered before the power failed. Of a run `id` is "run", and `channel` its name. */
interface Noted {
  readonly id: string;
  readonly channel: string;
  readonly data: string;
}

const seqOf = (id: string): number => Number(id.slice(id.lastIndexOf("-") + 1));

/** Starts a process whose power fails again and again. Calls `check` at each moment, with the folder of the image and what was noted. */
async function runProcess(
  shim: string,
  durability: Durability,
  processSeed: number,
  moments: number,
  check: (image: string, noted: readonly Noted[]) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "fanwire-power-"));
  const [data, image, notes] = [join(folder, "data"), join(folder, "image"), join(folder, "notes")];
  for (const each of [data, image]) mkdirSync(each);
  const env = { ...process.env, LD_PRELOAD: shim, SHIM_FOLDER: data, SHIM_IMAGE: image, SHIM_SEED: `${processSeed}` };
  const args = [
    "--disable-warning=ExperimentalWarning",
    child,
    join(data, "log.db"),
    durability,
    `${processSeed}`,
    notes,
  ];
  const publisher = spawn(node, args, { env, stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"] });
  let errors = "";
  publisher.stderr?.on("data", (text) => (errors += text));
  const [, , , stops, goOn] = publisher.stdio;
  try {
    let moment = 0;
    for await (const _ of stops as NodeJS.ReadableStream) {
      // A note that was not finished counts for nothing.
      const lines = readNotes(notes).split("\n").slice(0, -1);
      await check(
        image,
        lines.map((line) => {
          const [id = "", channel = "", text = ""] = line.split(" ");
          return { id, channel, data: text };
        }),
      );
      if (++moment === moments) break;
      (goOn as NodeJS.WritableStream).write("x");
    }
    if (moment < moments) throw new Error(`The process ended after ${moment} moments: ${errors}`);
  } finally {
    publisher.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  }
}

function readNotes(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** Opens the file after a power failure, and returns everything that is wrong with it. */
async function findFaults(path: string, durability: Durability, all: readonly Noted[]): Promise<string[]> {
  const faults: string[] = [];
  const noted = all.filter(({ id }) => id !== "run");
  const engine = sqliteEngine({ path, durability, logBytes: 1e9 });
  const broker = createBroker({ engine });
  const { runs, close } = openRunsOf(engine);
  try {
    const notedRuns = all.filter(({ id }) => id === "run");
    const runsOf = notedRuns.map(({ channel: name, data }) => {
      const [events, end = ""] = data.split(":");
      return { name, events: Number(events), end };
    });
    faults.push(...(await findRunFaults(runs, runsOf, durability === "power")));
    const epoch = noted[0]?.id.replace(/-\d+$/, "");
    const found = new Map<string, string>();
    const lost: { readonly channel: string; readonly after: number; readonly through: number }[] = [];
    for (const channel of ["a", "b", "c"]) {
      for (let after = epoch && `${epoch}-0`, more = true; more && after; ) {
        const part = await broker.history({ channels: channel, after, limit: 1_000 });
        for (const { id, data } of part.events) found.set(id, data);
        for (const gap of part.gaps)
          lost.push({ channel, after: gap.after === null ? -1 : seqOf(gap.after), through: seqOf(gap.through) });
        ({ more, position: after } = part);
      }
    }
    for (const { id, channel, data } of noted) {
      const isReported = lost.some(
        (gap) => gap.channel === channel && seqOf(id) > gap.after && seqOf(id) <= gap.through,
      );
      if (found.has(id) ? found.get(id) !== data : !isReported) faults.push(`${id} in ${channel} is ${found.get(id)}`);
      if (durability === "power" && !found.has(id)) faults.push(`${id} is lost`);
    }
    if (durability === "power" && lost.length > 0) faults.push(`there is a gap: ${JSON.stringify(lost)}`);
    const { id } = await broker.broadcast("after", { channels: "a" });
    const newest = Math.max(0, ...noted.map((each) => seqOf(each.id)));
    if (epoch && !id.startsWith(`${epoch}-`)) faults.push(`the epoch was ${epoch}, and the next event is ${id}`);
    if (seqOf(id) <= newest) faults.push(`${id} is assigned again; the newest event was ${newest}`);
  } finally {
    close();
    await broker.close();
  }
  return faults;
}

describe("power failures", needsCompiler, () => {
  test.each(["power", "process"] as const)(
    `durability %s: nothing that was answered or delivered is lost without a gap, and no position is assigned twice, at ${MOMENTS} moments`,
    { timeout: 600_000 },
    async (durability) => {
      const folder = mkdtempSync(join(tmpdir(), "fanwire-shim-"));
      const shim = join(folder, "shim.so");
      execFileSync("cc", ["-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"]);
      const random = new Random(seed);
      const seen = { noted: 0, runs: 0, losses: new Set<string>() };
      let left = MOMENTS;
      try {
        for (let index = 0; left > 0; index++) {
          const moments = Math.min(left, PER_PROCESS);
          left -= moments;
          await runProcess(shim, durability, seed * 1_000 + index, moments, async (image, noted) => {
            const target = join(folder, "disk");
            seen.losses.add(restoreImage(image, target, random));
            seen.noted += noted.length;
            seen.runs += noted.filter(({ id, data }) => id === "run" && data.endsWith(":ended")).length;
            const faults = await findFaults(join(target, "log.db"), durability, noted);
            expect(faults, `seed ${seed}, process ${index}`).toEqual([]);
          });
        }
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
      // Most moments came after events that were answered.
      expect(seen.noted).toBeGreaterThan(MOMENTS);
      expect(seen.runs).toBeGreaterThan(MOMENTS / 4);
      expect(seen.losses.size).toBe(3);
    },
  );
});
