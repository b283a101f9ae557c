// Starts and ends child processes.
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const BINARIES = new URL("../../node_modules/.bin/", import.meta.url);
const running = new Set<ChildProcess>();

/** Starts a program in a process group of its own, because some programs are wrappers. Its stderr is shown. */
export function start(binary: string, args: readonly string[]): ChildProcess {
  const child = spawn(fileURLToPath(new URL(binary, BINARIES)), args, {
    stdio: ["pipe", "pipe", "inherit"],
    detached: true,
  });
  running.add(child);
  child.stdin?.on("error", () => {
    // The child ended first, which its exit event reports.
  });
  child.once("exit", () => running.delete(child));
  child.once("error", () => running.delete(child));
  return child;
}

/** Returns the first matching line of a child's output. Rejects if the child ends first, or after `seconds`. */
export function line(child: ChildProcess, pattern: RegExp, seconds: number): Promise<RegExpExecArray> {
  return new Promise((resolve, reject) => {
    const command = child.spawnargs.join(" ");
    const timer = setTimeout(
      () => reject(new Error(`waiting for ${pattern}: not received within ${seconds} s from ${command}`)),
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

/** Ends a child: first by closing its stdin, then by force. */
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
    // The child has already ended.
  }
}

/** Ends all children when this process exits. If this process is killed, the end of their stdin ends them. */
export function killAllAtExit(): void {
  process.once("exit", () => {
    for (const child of running) kill(child, "SIGTERM");
  });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(1));
}
