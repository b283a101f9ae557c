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
import { type Mutant, testFileOf } from "./mutants.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** Folders that are not copied: they do not belong to the source, or a link replaces them. */
const NOT_COPIED = new Set(["node_modules", ".git", ".wrangler", "dist", "coverage"]);
/** A run counts as hanging when it takes this many times as long as a run of the unchanged source. */
const HANG_FACTOR = 4;
/** The shortest time after which a run counts as hanging, in seconds. */
const MIN_LIMIT_S = 120;
/** The longest time of the first run, in seconds. */
const MAX_FIRST_RUN_S = 1_800;

const PASSED = { caughtBy: undefined, file: undefined };

/** A mode of vitest. */
export type Mode = "node" | "wire" | "redis" | "workers";

/** The result of a run of tests. */
export interface Result {
  /** The first test that failed, or `undefined` if all passed. */
  readonly caughtBy: string | undefined;
  /** The file of that test. */
  readonly file: string | undefined;
  readonly seconds: number;
}

/** The fields of vitest's JSON report that are read here. */
interface VitestReport {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly { readonly fullName: string; readonly status: string }[];
  }[];
}

/** A copy of this checkout that may be broken. It is removed when the process exits. */
export class Checkout {
  readonly #scratch = realpathSync(mkdtempSync(join(tmpdir(), "fanwire-mutants-")));
  readonly #root = join(this.#scratch, "checkout");
  readonly #reports = join(this.#scratch, "reports");
  /** Seconds that a run of the unchanged source takes, by mode. */
  readonly #usualSeconds = new Map<string, number>();
  #running: ChildProcess | undefined;

  constructor() {
    process.once("exit", () => {
      this.#kill();
      rmSync(this.#scratch, { recursive: true, force: true, maxRetries: 5 });
    });
    cpSync(ROOT, this.#root, { recursive: true, filter: (path) => !NOT_COPIED.has(basename(path)) });
    symlinkSync(realpathSync(join(ROOT, "node_modules")), join(this.#root, "node_modules"), "dir");
  }

  /** Whether the text to find occurs exactly once in the mutant's file. */
  fits({ file, find }: Mutant): boolean {
    return readFileSync(join(this.#root, "src", file), "utf8").split(find).length === 2;
  }

  /**
   * Applies a mutant, runs the file that most likely catches it and then all files if it does not, and undoes the change. In the suites `redis`
   * and `workers` only the file runs, because they take minutes.
   */
  async tryOut(mutant: Mutant, mode: Mode): Promise<Result> {
    const { file, find, replace } = mutant;
    const path = join(this.#root, "src", file);
    const source = readFileSync(path, "utf8");
    writeFileSync(path, source.split(find).join(replace));
    try {
      const likely = mode === "wire" ? undefined : await this.run(mode, [testFileOf(mutant)]);
      if (likely && (likely.caughtBy !== undefined || mode !== "node")) return likely;
      const all = await this.run(mode);
      // A test may also fail because the machine is busy, so an unexpected failure has to repeat.
      const again = all.file === undefined ? all : await this.run(mode, [all.file]);
      return { ...again, seconds: (likely?.seconds ?? 0) + all.seconds };
    } finally {
      writeFileSync(path, source);
    }
  }

  /** Runs the tests of a mode, or some of its files, up to the first failure. */
  async run(mode: Mode, files: readonly string[] = []): Promise<Result> {
    rmSync(this.#reports, { recursive: true, force: true });
    mkdirSync(this.#reports);
    const start = performance.now();
    const usual = this.#usualSeconds.get(mode);
    const limit = usual === undefined ? MAX_FIRST_RUN_S : Math.max(MIN_LIMIT_S, usual * HANG_FACTOR);
    // A mutant that does not pass the type check is built as well.
    if (mode === "wire") await this.#start(["node_modules/typescript/bin/tsc", "--noEmitOnError", "false"], limit);
    const status = await this.#start(
      ["node_modules/vitest/vitest.mjs", "run", "--mode", mode, "--bail", "1", ...files],
      limit,
    );
    const seconds = (performance.now() - start) / 1000;
    if (status === 0 && usual === undefined && files.length === 0) this.#usualSeconds.set(mode, seconds);
    return { ...(status === 0 ? PASSED : this.#failure(mode, status)), seconds };
  }

  /** Runs a program of Node. Resolves with its exit code, or with "hangs" after `limitSeconds`. */
  #start(args: readonly string[], limitSeconds: number): Promise<number | "hangs"> {
    return new Promise((resolve, reject) => {
      // A process group of its own, because a worker that hangs does not end with its parent.
      const child = spawn(process.execPath, args, {
        cwd: this.#root,
        detached: true,
        stdio: "ignore",
        env: {
          ...process.env,
          FANWIRE_REPORT_DIR: this.#reports,
          VITEST_FS_MODULE_CACHE_PATH: join(this.#scratch, "cache"),
        },
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

  #failure(mode: string, status: number | "hangs"): Omit<Result, "seconds"> {
    const reports = readdirSync(this.#reports).filter((name) => name.startsWith(`${mode}-`));
    const files = reports.flatMap(
      (name) => (JSON.parse(readFileSync(join(this.#reports, name), "utf8")) as VitestReport).testResults,
    );
    for (const { name, assertionResults } of files) {
      const test = assertionResults.find((each) => each.status === "failed");
      const file = relative(this.#root, name);
      if (test) return { file, caughtBy: `${file}: ${test.fullName}` };
    }
    if (status === "hangs") return { file: undefined, caughtBy: "the run hangs" };
    // With `--bail`, files that did not start are reported as failed too.
    const hasUnloadedFile = files.some(({ status }) => status === "failed");
    return { file: undefined, caughtBy: hasUnloadedFile ? "a file does not load" : "an error outside of a test" };
  }

  #kill(): void {
    try {
      if (this.#running?.pid !== undefined) process.kill(-this.#running.pid, "SIGKILL");
    } catch {
      // The whole group has already ended.
    }
  }
}
