// A copy of the checkout in which mutants are tried out.
import { type ChildProcess, spawn } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { type Mode, type Mutant, modeOf, testFileOf } from "./mutants.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** Folders that are not copied: they do not belong to the source, links replace them, or a build that runs beside this removes them. */
const NOT_COPIED = /^(?:node_modules|\.git|\.wrangler|dist|\.dist-.*|coverage)$/;

/** What the tests of one file showed. */
interface FileResult {
  /** The first test that failed, or why the file failed. `undefined` if nothing did. */
  readonly failure: string | undefined;
  /** Whether a test ran: on a machine without a program that they need, all are skipped. */
  readonly hasRun: boolean;
  /** How long the tests took, without the start of vitest. */
  readonly seconds: number;
}

/** What a run of tests showed. */
export interface RunResult {
  /** The first test that failed, or why the run failed. `undefined` if all passed. */
  readonly failure: string | undefined;
  /** How long the run took, with the start of vitest. */
  readonly seconds: number;
  /** By path. */
  readonly files: ReadonlyMap<string, FileResult>;
}

/** The fields of vitest's JSON report that are read here. */
interface VitestReport {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly startTime: number;
    readonly endTime: number;
    readonly assertionResults: readonly { readonly fullName: string; readonly status: string }[];
  }[];
}

/** Fewer random histories, where a file of tests would take minutes. */
const FEW: Partial<Record<Mode, Record<string, string>>> = { "sqlite-files": { HISTORIES: "60" } };

/** A copy of this checkout that may be broken. It runs one thing at a time, and is removed when the process exits, or before. */
export class Checkout {
  readonly #scratch = realpathSync(mkdtempSync(join(tmpdir(), "fanwire-mutants-")));
  readonly #root = join(this.#scratch, "checkout");
  readonly #reports = join(this.#scratch, "reports");
  #running: ChildProcess | undefined;

  constructor() {
    process.once("exit", () => this.remove());
    cpSync(ROOT, this.#root, { recursive: true, filter: (path) => !NOT_COPIED.test(basename(path)) });
    this.#linkModules();
  }

  /** Ends what runs, and deletes the copy. */
  remove(): void {
    this.#kill();
    rmSync(this.#scratch, { recursive: true, force: true, maxRetries: 5 });
  }

  /**
   * Links each installed package. The folder itself is not a link, because vitest writes into it, and two checkouts would write to the same
   * files. Links work where the temporary folder is on another file system, which hard links do not.
   */
  #linkModules(): void {
    const from = realpathSync(join(ROOT, "node_modules"));
    const to = join(this.#root, "node_modules");
    mkdirSync(to);
    for (const name of readdirSync(from))
      if (name === ".bin" || !name.startsWith(".")) symlinkSync(join(from, name), join(to, name));
  }

  /** Applies a mutant, runs its file of tests up to the first failure, or with `runsAll` all files of its mode, and undoes the change. */
  async tryOut(mutant: Mutant, limitSeconds: number, runsAll = false): Promise<RunResult> {
    const { file, find, replace } = mutant;
    const path = join(this.#root, "src", file);
    const source = readFileSync(path, "utf8");
    writeFileSync(path, source.split(find).join(replace));
    try {
      // A test that waits for what a mutant has taken away says its name after a while.
      const options = ["--bail", "1", "--testTimeout", "20000"];
      return await this.run(modeOf(mutant), runsAll ? [] : [testFileOf(mutant)], limitSeconds, options);
    } finally {
      writeFileSync(path, source);
    }
  }

  /** Runs files of tests, or all of the mode if none is named. A run that takes longer than `limitSeconds` is killed, and counts as failed. */
  async run(
    mode: Mode,
    files: readonly string[],
    limitSeconds: number,
    options: readonly string[] = [],
  ): Promise<RunResult> {
    rmSync(this.#reports, { recursive: true, force: true });
    mkdirSync(this.#reports);
    const start = performance.now();
    const vitest = ["node_modules/vitest/vitest.mjs", "run", "--mode", mode, ...options, ...files];
    const status = await this.#start(vitest, limitSeconds);
    const seconds = (performance.now() - start) / 1000;
    const results = this.#readReports();
    const failures = [...results.values()].flatMap(({ failure }) => failure ?? []);
    // With `--bail`, files that did not start are reported as failed too.
    const failure = failures.find((text) => text !== NOT_LOADED) ?? (status === "hangs" ? HANGS : failures[0]);
    // An unhandled rejection fails a run without failing a test.
    return { failure: failure ?? (status === 0 ? undefined : OUTSIDE), seconds, files: results };
  }

  /** Runs a program of Node. Resolves with its exit code, or with "hangs" after `limitSeconds`. */
  #start(args: readonly string[], limitSeconds: number): Promise<number | "hangs"> {
    return new Promise((resolve, reject) => {
      // A process group of its own, because a worker that hangs does not end with its parent.
      const child = spawn(process.execPath, args, {
        cwd: this.#root,
        detached: true,
        stdio: "ignore",
        env: { ...process.env, ...FEW[args[args.indexOf("--mode") + 1] as Mode], FANWIRE_REPORT_DIR: this.#reports },
      });
      this.#running = child;
      let hangs = false;
      const timer = setTimeout(() => {
        hangs = true;
        this.#kill();
      }, limitSeconds * 1000);
      child.once("error", reject);
      child.once("exit", (status) => {
        clearTimeout(timer);
        // Ends the workers that a killed or crashed run leaves behind.
        this.#kill();
        this.#running = undefined;
        resolve(hangs ? "hangs" : (status ?? 1));
      });
    });
  }

  #readReports(): Map<string, FileResult> {
    const results = new Map<string, FileResult>();
    for (const report of readdirSync(this.#reports)) {
      const { testResults } = JSON.parse(readFileSync(join(this.#reports, report), "utf8")) as VitestReport;
      for (const { name, status, startTime, endTime, assertionResults } of testResults) {
        const file = relative(this.#root, name);
        const failed = assertionResults.find((test) => test.status === "failed");
        const hasRun = assertionResults.some((test) => test.status === "passed" || test.status === "failed");
        const failure = failed ? `${file}: ${failed.fullName}` : status === "failed" ? NOT_LOADED : undefined;
        results.set(file, { failure, hasRun, seconds: (endTime - startTime) / 1000 });
      }
    }
    return results;
  }

  #kill(): void {
    try {
      if (this.#running?.pid !== undefined) process.kill(-this.#running.pid, "SIGKILL");
    } catch {
      // The whole group has already ended.
    }
  }
}

const NOT_LOADED = "a file does not load";
const HANGS = "the run hangs";
const OUTSIDE = "an error outside of a test";
