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
import type { Mutant } from "./mutants.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** What is not of the source, or is linked to. */
const LEFT_OUT = new Set(["node_modules", ".git", ".wrangler", "dist", "coverage"]);
/** A run that takes so many times as long as one without a change hangs; nothing is taken for that sooner than after so many seconds. */
const PATIENCE = 4;
const LEAST_PATIENCE = 120;
/** Seconds that a first run may take. */
const MOST = 1_800;

const PASSED = { caughtBy: undefined, file: undefined };

/** What a run said. */
export interface Verdict {
  /** The first test that failed; `undefined` if all passed. */
  readonly caughtBy: string | undefined;
  /** The file that it is in. */
  readonly file: string | undefined;
  readonly seconds: number;
}

/** The report of vitest, as far as it is read here. */
interface Results {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly { readonly fullName: string; readonly status: string }[];
  }[];
}

/** A copy of this checkout, to be broken. Removed with the process. */
export class Checkout {
  readonly #scratch = realpathSync(mkdtempSync(join(tmpdir(), "fanwire-mutants-")));
  readonly #root = join(this.#scratch, "checkout");
  readonly #reports = join(this.#scratch, "reports");
  /** Seconds that each kind of run takes without a change. */
  readonly #usual = new Map<string, number>();
  #running: ChildProcess | undefined;

  constructor() {
    process.once("exit", () => {
      this.#kill();
      rmSync(this.#scratch, { recursive: true, force: true, maxRetries: 5 });
    });
    cpSync(ROOT, this.#root, { recursive: true, filter: (path) => !LEFT_OUT.has(basename(path)) });
    symlinkSync(realpathSync(join(ROOT, "node_modules")), join(this.#root, "node_modules"), "dir");
  }

  /** Whether a mutant's text is where it is looked for, once. */
  fits({ file, find }: Mutant): boolean {
    return readFileSync(join(this.#root, "src", file), "utf8").split(find).length === 2;
  }

  /** Runs with the one change, and takes it back. The file that most likely notices is run first, and all of them if it does not. */
  async tryOut({ file, find, replace, tests }: Mutant, mode: "node" | "wire"): Promise<Verdict> {
    const path = join(this.#root, "src", file);
    const source = readFileSync(path, "utf8");
    writeFileSync(path, source.split(find).join(replace));
    try {
      const likely = mode === "node" ? await this.run(mode, [`test/conformance/${tests}.test.ts`]) : undefined;
      if (likely?.caughtBy !== undefined) return likely;
      const all = await this.run(mode);
      // A test may fail because the machine is busy: one that was not expected to notice has to do so twice.
      const again = all.file === undefined ? all : await this.run(mode, [all.file]);
      return { ...again, seconds: (likely?.seconds ?? 0) + all.seconds };
    } finally {
      writeFileSync(path, source);
    }
  }

  /** Runs a part of the suite as it is, or some files of it, up to the first failure. */
  async run(mode: "node" | "wire", files: readonly string[] = []): Promise<Verdict> {
    rmSync(this.#reports, { recursive: true, force: true });
    mkdirSync(this.#reports);
    const began = performance.now();
    const usual = this.#usual.get(mode);
    const limit = usual === undefined ? MOST : Math.max(LEAST_PATIENCE, usual * PATIENCE);
    // A change that TypeScript would refuse is built as well.
    if (mode === "wire") await this.#start(["node_modules/typescript/bin/tsc", "--noEmitOnError", "false"], limit);
    const status = await this.#start(
      ["node_modules/vitest/vitest.mjs", "run", "--mode", mode, "--bail", "1", ...files],
      limit,
    );
    const seconds = (performance.now() - began) / 1000;
    if (status === 0 && usual === undefined && files.length === 0) this.#usual.set(mode, seconds);
    return { ...(status === 0 ? PASSED : this.#failure(mode, status)), seconds };
  }

  #start(args: readonly string[], limit: number): Promise<number | "hangs"> {
    return new Promise((resolve, reject) => {
      // A group of its own: a worker that hangs does not end with its parent.
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
      }, limit * 1000);
      child.once("error", reject);
      child.once("exit", (status) => {
        clearTimeout(timer);
        // What a killed or crashed run has left.
        this.#kill();
        this.#running = undefined;
        resolve(hangs ? "hangs" : (status ?? 1));
      });
    });
  }

  #failure(mode: string, status: number | "hangs"): Omit<Verdict, "seconds"> {
    const reports = readdirSync(this.#reports).filter((name) => name.startsWith(`${mode}-`));
    const files = reports.flatMap(
      (name) => (JSON.parse(readFileSync(join(this.#reports, name), "utf8")) as Results).testResults,
    );
    for (const { name, assertionResults } of files) {
      const test = assertionResults.find((each) => each.status === "failed");
      const file = relative(this.#root, name);
      if (test) return { file, caughtBy: `${file}: ${test.fullName}` };
    }
    if (status === "hangs") return { file: undefined, caughtBy: "it hangs" };
    // With `--bail` those that were not begun are said to have failed as well.
    const isUnread = files.some(({ status }) => status === "failed");
    return { file: undefined, caughtBy: isUnread ? "a file does not load" : "an error outside of the tests" };
  }

  #kill(): void {
    try {
      if (this.#running?.pid !== undefined) process.kill(-this.#running.pid, "SIGKILL");
    } catch {
      // All of it has ended by itself.
    }
  }
}
