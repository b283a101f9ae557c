import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";

const running = new Set<Child>();
process.once("exit", () => {
  for (const child of running) child.signal("SIGKILL");
});

/** Lines of what a process printed that are kept. */
const TAIL = 60;

/** A process in a group of its own, because some commands are wrappers. */
export class Child {
  readonly process: ChildProcess;
  readonly exited: Promise<unknown>;
  /** The end of what it printed. */
  readonly tail: string[] = [];
  isGone = false;
  #wake: (() => void)[] = [];
  #rest = "";

  constructor(command: readonly string[], env: Readonly<Record<string, string>> = {}) {
    const [program = "", ...args] = command;
    this.process = spawn(program, args, {
      env: { ...process.env, NO_COLOR: "1", ...env },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    running.add(this);
    this.process.once("error", (error) => this.#print(`${String(error)}\n`));
    this.exited = once(this.process, "close").then(() => {
      this.isGone = true;
      running.delete(this);
      this.#notify();
    });
    for (const stream of [this.process.stdout, this.process.stderr])
      stream?.on("data", (data: Buffer) => this.#print(data.toString("utf8")));
  }

  /** Resolves when it has printed such a line. */
  async line(pattern: RegExp): Promise<void> {
    while (!this.tail.some((line) => pattern.test(line))) {
      if (this.isGone) throw new Error(`${this.process.spawnargs.join(" ")} ended:\n${this.tail.join("\n")}`);
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  signal(signal: NodeJS.Signals): void {
    const { pid } = this.process;
    if (pid === undefined || this.isGone) return;
    try {
      process.kill(-pid, signal);
    } catch (error) {
      // It has just ended by itself.
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }

  /** Resolves when it is gone and its address is free. */
  async kill(): Promise<void> {
    this.signal("SIGKILL");
    await this.exited;
  }

  #print(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    this.tail.push(...lines);
    this.tail.splice(0, this.tail.length - TAIL);
    this.#notify();
  }

  #notify(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}
