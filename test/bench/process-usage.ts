// Reads from outside what a server uses that is not JavaScript or cannot report it, and serves that to the server.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, createServer as createListener } from "node:net";
import type { Usage } from "./usage.ts";

/** Microseconds in one tick of /proc/<pid>/stat, the same on every Linux. */
const TICK_US = 10_000;
const PAGE_BYTES = 4_096;

function usageOf(pid: number): Usage {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [user, system, pages] = [fields[11], fields[12], fields[21]].map(Number) as [number, number, number];
  return { cpu: (user + system) * TICK_US, rss: pages * PAGE_BYTES };
}

/** Serves the usage of a process over HTTP. Returns the port. */
export async function serveUsage(pid: () => number): Promise<number> {
  const server = createServer((_, response) => response.end(JSON.stringify(usageOf(pid())))).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  return (server.address() as AddressInfo).port;
}

export async function freePort(): Promise<number> {
  const listener = createListener().listen(0, "127.0.0.1");
  await new Promise((resolve) => listener.once("listening", resolve));
  const { port } = listener.address() as AddressInfo;
  await new Promise((resolve) => listener.close(resolve));
  return port;
}
