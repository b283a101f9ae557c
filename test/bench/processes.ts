import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const BINARIES = new URL("../../node_modules/.bin/", import.meta.url);
const running = new Set<ChildProcess>();

/** A child in a process group of its own, because some commands are wrappers. What it prints on stderr is shown. */
export function start(binary: string, args: readonly string[]): ChildProcess {
  const child = spawn(fileURLToPath(new URL(binary, BINARIES)), args, {
    stdio: ["pipe", "pipe", "inherit"],
    detached: true,
  });
  running.add(child);
  child.stdin?.on("error", () => {
    // It ended before us, which its exit tells.
  });
  child.once("exit", () => running.delete(child));
  child.once("error", () => running.delete(child));
  return child;
}

/** The first line that matches, of what it prints. Rejects if it ends before, or after so many seconds. */
export function line(child: ChildProcess, pattern: RegExp, seconds: number): Promise<RegExpExecArray> {
  return new Promise((resolve, reject) => {
    const command = child.spawnargs.join(" ");
    const timer = setTimeout(
      () => reject(new Error(`waiting for ${pattern}: ${seconds} s are over: ${command}`)),
      seconds * 1000,
    );
    createInterface({ input: child.stdout as NonNullable<ChildProcess["stdout"]> }).on("line", (text) => {
      const match = pattern.exec(text);
      if (match) resolve(match);
    });
    child.once("error", reject);
    child.once("close", (status, signal) =>
      reject(new Error(`waiting for ${pattern}: ${command} ended with ${signal ?? status}`)),
    );
    child.once("close", () => clearTimeout(timer));
  });
}

/** Ends a child: politely, by the end of its stdin, then by force. */
export async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const timer = setTimeout(() => kill(child, "SIGKILL"), 2_000);
  child.stdin?.end();
  await ended;
  clearTimeout(timer);
}

function kill(child: ChildProcess, signal: NodeJS.Signals): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, signal);
  } catch {
    // It ended by itself.
  }
}

/** Ends what is still running at the end of this process; if that is killed, what it started sees its stdin end. */
export function killAllAtExit(): void {
  process.once("exit", () => {
    for (const child of running) kill(child, "SIGTERM");
  });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(1));
}
