// Child processes that never outlive the test run.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";

const running = new Set<Child>();
process.once("exit", () => {
  for (const child of running) child.signal("SIGKILL");
});

/** Lines of a process's output that are kept. */
const MAX_OUTPUT_LINES = 60;

/** A child process in a process group of its own, because some commands are wrappers. */
export class Child {
  readonly process: ChildProcess;
  readonly exited: Promise<unknown>;
  /** The last lines of the output. */
  readonly output: string[] = [];
  hasExited = false;
  #waiters: (() => void)[] = [];
  #unfinishedLine = "";

  constructor(command: readonly string[], env: Readonly<Record<string, string>> = {}) {
    const [program = "", ...args] = command;
    this.process = spawn(program, args, {
      env: { ...process.env, NO_COLOR: "1", ...env },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    running.add(this);
    this.process.once("error", (error) => this.#addOutput(`${String(error)}\n`));
    this.exited = once(this.process, "close").then(() => {
      this.hasExited = true;
      running.delete(this);
      this.#notify();
    });
    for (const stream of [this.process.stdout, this.process.stderr])
      stream?.on("data", (data: Buffer) => this.#addOutput(data.toString("utf8")));
  }

  /** Resolves when a line of the output matches. */
  async line(pattern: RegExp): Promise<void> {
    while (!this.output.some((line) => pattern.test(line))) {
      if (this.hasExited) throw new Error(`${this.process.spawnargs.join(" ")} ended:\n${this.output.join("\n")}`);
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
  }

  signal(signal: NodeJS.Signals): void {
    const { pid } = this.process;
    if (pid === undefined || this.hasExited) return;
    try {
      process.kill(-pid, signal);
    } catch (error) {
      // The process has just ended by itself.
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }

  /** Resolves when the process has ended, and its address is free. */
  async kill(): Promise<void> {
    this.signal("SIGKILL");
    await this.exited;
  }

  #addOutput(text: string): void {
    const lines = (this.#unfinishedLine + text).split("\n");
    this.#unfinishedLine = lines.pop() ?? "";
    this.output.push(...lines);
    this.output.splice(0, this.output.length - MAX_OUTPUT_LINES);
    this.#notify();
  }

  #notify(): void {
    for (const resolve of this.#waiters.splice(0)) resolve();
  }
}
