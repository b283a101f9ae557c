// Runs one load on one server.
import { fileURLToPath } from "node:url";
import type { Load, Outcome } from "./client.ts";
import { line, start, stop } from "./processes.ts";
import type { Technology } from "./technologies.ts";

/** Seconds that a run may take in addition to its load: for starting, connecting, filling, and waiting for late deliveries. */
const EXTRA_S = 120;

/** Starts a server, loads it from a process of its own, and ends both. */
export async function measure<L extends Load>(
  { command: [binary, ...args], file, argument = "" }: Pick<Technology, "command" | "file" | "argument">,
  load: L,
): Promise<Extract<Outcome, { kind: L["kind"] }>> {
  const server = start(binary, [...args, path(`servers/${file}`), argument]);
  try {
    const [, port] = await line(server, /^listening (\d+)$/, 20);
    const client = start("node", [path("client.ts"), JSON.stringify({ port: Number(port), load })]);
    try {
      return JSON.parse((await line(client, /^\{.*\}$/, EXTRA_S + duration(load)))[0]);
    } finally {
      await stop(client);
    }
  } finally {
    await stop(server);
  }
}

function duration(load: Load): number {
  if (load.kind === "events") return load.patterns.length * (load.warmup + load.seconds + 10);
  return load.kind === "replay" ? 30 : load.seconds;
}

function path(file: string): string {
  return fileURLToPath(new URL(file, import.meta.url));
}
