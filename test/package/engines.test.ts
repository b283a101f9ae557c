// Engines that are written against the packed package only, as a newcomer writes them: one over a SQLite file, and a log that processes share
// over TCP. Each passes every case of the contract that applies to it.
import { type ExecFileException, execFile } from "node:child_process";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { brokerCases, engineCases } from "../../src/testing/index.ts";
import type { CaseOutcome } from "./engines/run-cases.ts";

const run = promisify(execFile);
const root = join(import.meta.dirname, "../..");
const node = join(root, "node_modules/.bin/node");
const cases = [...engineCases, ...brokerCases];
const MAX_LINES = 300;

const COMPILER_OPTIONS = {
  ...{ strict: true, noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true, verbatimModuleSyntax: true },
  ...{ erasableSyntaxOnly: true, noEmit: true, skipLibCheck: false, allowImportingTsExtensions: true },
  ...{ target: "es2023", lib: ["es2023"], module: "nodenext" },
  ...{ types: ["node"], typeRoots: [join(root, "node_modules/@types")] },
};

/** The engine that the example of src/testing/README.md tests: that of src/engine/README.md. */
const README_PRELUDE = `
import { minimalEngine } from "./minimal-engine.ts";
import type { Engine } from "fanwire/engine";
import type { NamespaceOptions } from "fanwire/engine/testing";
const engines = new Map<string, Engine>();
function myEngine(name: string, { retention, idempotencyWindow }: NamespaceOptions = {}): Engine {
  const engine = engines.get(name) ?? minimalEngine(idempotencyWindow, { retention });
  engines.set(name, engine);
  return engine;
}
const dropLog = (name: string): void => void engines.delete(name);
`;

/** A project that has installed the packed package, with the engines. */
let folder: string;
/** The outcomes of all cases, by the name of the engine. Both engines run at the same time. */
const outcomesOf = new Map<string, Promise<readonly CaseOutcome[]>>();

async function runCases(name: string): Promise<readonly CaseOutcome[]> {
  const { stdout } = await run(node, ["run-cases.ts", name], { cwd: folder });
  const lines = stdout.trim().split("\n");
  return lines.map((line) => JSON.parse(line) as CaseOutcome);
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fanwire-engines-"));
  // Scripts off: `npm run test:package` has just built, and prepack would build again.
  const args = ["pack", "--json", "--ignore-scripts", "--pack-destination", folder];
  const [report] = Object.values(JSON.parse((await run("npm", args, { cwd: root })).stdout)) as { filename: string }[];
  if (!report) throw new Error("npm pack reported no tarball.");
  await writeFile(join(folder, "package.json"), JSON.stringify({ name: "user", private: true, type: "module" }));
  await run("npm", ["install", "--no-audit", "--no-fund", "--offline", join(folder, report.filename)], { cwd: folder });
  await cp(join(import.meta.dirname, "engines"), folder, { recursive: true });
  await writeFile(join(folder, "minimal-engine.ts"), await firstSnippetOf("src/engine/README.md"));
  await writeFile(join(folder, "readme-cases.ts"), README_PRELUDE + (await firstSnippetOf("src/testing/README.md")));
  await writeFile(
    join(folder, "tsconfig.json"),
    JSON.stringify({ compilerOptions: COMPILER_OPTIONS, include: ["*.ts"] }),
  );
  for (const name of Object.keys(NOT_APPLICABLE)) outcomesOf.set(name, runCases(name));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function firstSnippetOf(document: string): Promise<string> {
  const [, code] = /^```ts\n([\s\S]*?)^```/m.exec(await readFile(join(root, document), "utf8")) ?? [];
  if (!code) throw new Error(`${document} has no TypeScript snippet.`);
  return code;
}

test("engines: compile against the declarations of the packed package", async () => {
  const failed = await run(join(root, "node_modules/.bin/tsc"), ["-p", folder]).catch(
    (error: ExecFileException) => error,
  );
  expect(failed.stdout).toBe("");
});

test.each(["sqlite-engine.ts", "tcp-log.ts"])(
  "%s: imports only Node and fanwire/engine, in less than 300 lines",
  async (file) => {
    const text = await readFile(join(folder, file), "utf8");
    expect(text.split("\n").length).toBeLessThan(MAX_LINES);
    const imports = [...text.matchAll(/ from "(.+)";$/gm)].map(([, name]) => name);
    expect(imports.filter((name) => !name?.startsWith("node:"))).toEqual(["fanwire/engine"]);
  },
);

/** Why a case does not apply to an engine whose log is in one process. */
const LOG_IN_PROCESS = "nothing can fail between the engine and its log";
const KEPT_EVENTS_ONLY = "the engine has no `sendEphemeral`";
const ONE_BROKER_PER_PROCESS = "there is no other process; brokers of one process do not share their clients";
const NOT_APPLICABLE: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  sqlite: {
    "order/ephemeral": KEPT_EVENTS_ONLY,
    "epoch/new": LOG_IN_PROCESS,
    "outcome/unknown": LOG_IN_PROCESS,
    "outage/said": LOG_IN_PROCESS,
    "outage/refused": LOG_IN_PROCESS,
    "outage/healed": LOG_IN_PROCESS,
    "feed/cut": LOG_IN_PROCESS,
    "feed/told-up-to-head": LOG_IN_PROCESS,
    "feed/cut-while-busy": LOG_IN_PROCESS,
    "feed/subscribed-while-cut": LOG_IN_PROCESS,
    "feed/swallowed": LOG_IN_PROCESS,
    "feed/last-message-vanished": LOG_IN_PROCESS,
    "feed/half-open": LOG_IN_PROCESS,
    "brokers/inbox": ONE_BROKER_PER_PROCESS,
    "brokers/disconnect": ONE_BROKER_PER_PROCESS,
    "brokers/reject": ONE_BROKER_PER_PROCESS,
    "brokers/replace": ONE_BROKER_PER_PROCESS,
    "brokers/feed-cut": LOG_IN_PROCESS,
    "brokers/last-message-vanished": LOG_IN_PROCESS,
    "brokers/away": LOG_IN_PROCESS,
    "brokers/new-epoch": LOG_IN_PROCESS,
  },
  tcp: { "order/ephemeral": KEPT_EVENTS_ONLY },
};

describe.each(Object.entries(NOT_APPLICABLE))("the contract, on the %s engine", (name, notApplicable) => {
  let outcomes: ReadonlyMap<string, CaseOutcome>;

  beforeAll(async () => {
    outcomes = new Map((await outcomesOf.get(name))?.map((outcome) => [outcome.id, outcome]));
  });

  test.each(cases.filter(({ id }) => !(id in notApplicable)))("$id: $title", ({ id }) => {
    expect(outcomes.get(id)).toEqual({ id, missing: [] });
  });

  test("the cases that do not apply are exactly those that are listed with a reason", () => {
    const skipped = [...outcomes.values()].filter(({ missing }) => missing.length > 0).map(({ id }) => id);
    expect(skipped.sort()).toEqual(Object.keys(notApplicable).sort());
    expect([...outcomes.keys()].sort()).toEqual(cases.map(({ id }) => id).sort());
  });
});

/** Runs one life of a process on a SQLite file. */
async function live(file: string, ...args: readonly string[]): Promise<Record<string, unknown>> {
  // A process that kills itself makes this reject, with its output.
  const { stdout } = await run(node, ["restart.ts", join(folder, file), ...args], { cwd: folder }).catch(
    (error: { stdout: string; stderr: string }) => error,
  );
  return JSON.parse(stdout) as Record<string, unknown>;
}

/** The ids and the data of the events in a stream that have no event type. */
const eventsOf = (stream: unknown): unknown[] =>
  [...String(stream).matchAll(/\n\ndata: (.+)\nid: (.+)/g)].map(([, data, id]) => [id, data]);

test("sqliteEngine(): ids, history, gaps, idempotency keys and barred ids survive a crash, and a restart", async () => {
  const { ids } = (await live("restart.db", "first")) as { ids: string[] };
  const [one = "", two = "", three = ""] = ids;
  const afterCrash = await live("restart.db", "next", one, three);
  expect(afterCrash).toMatchObject({ repeated: one, guest: 204 });
  const last = String(afterCrash.last);
  expect(last.replace(/-\d+$/, "")).toBe(one.replace(/-\d+$/, ""));
  expect(afterCrash.a).toContain('"resumed":true');
  expect(afterCrash.a).not.toContain("fanwire-gap");
  expect(eventsOf(afterCrash.a)).toEqual([
    [two, "two"],
    [three, "three"],
    [last, "last"],
  ]);
  // Of the nine events of this channel, five are retained.
  expect(String(afterCrash.b).match(/fanwire-gap/g)).toHaveLength(1);
  expect(eventsOf(afterCrash.b).map((event) => (event as string[])[1])).toEqual(["b 5", "b 6", "b 7", "b 8", "last"]);
  const afterRestart = await live("restart.db", "next", one, three);
  const withoutNames = (seen: Record<string, unknown>): string =>
    JSON.stringify(seen).replaceAll(/(clientId|secret)[^,}]+|retry: \d+/g, "");
  expect(withoutNames(afterRestart)).toBe(withoutNames(afterCrash));
});

test("sqliteEngine(): refuses a file that another process has open", async () => {
  expect(await live("locked.db", "locked")).toEqual({ code: "engine-refused" });
});

test("READMEs of engine and testing: the example engine passes the cases, run as the example says", async () => {
  const { stdout } = await run(node, ["--test-reporter", "tap", "readme-cases.ts"], { cwd: folder });
  expect(stdout).toMatch(/^# fail 0$/m);
  const skipped = Object.keys(NOT_APPLICABLE.sqlite ?? {}).length;
  expect(stdout).toContain(`# pass ${cases.length - skipped}\n`);
  expect(stdout).toContain(`# skipped ${skipped}\n`);
});
