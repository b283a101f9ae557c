// Plays each attack on each platform for a few seconds. Prints figures, and fails only if the healthy client lost an event.
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { type Platform, platforms, startServer } from "../support/servers/server.ts";
import { type Attack, attacks, type Target } from "./attacks.ts";

const seconds = Number(process.env.ABUSE_SECONDS ?? 5);
const list = (value: string | undefined): string[] => (value ?? "").split(",").filter(Boolean);
const only = list(process.env.ABUSE_ONLY);
const chosen = list(process.env.ABUSE_ATTACKS);
/** Events to the healthy client in a second. */
const RATE = 25;
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Returns the CPU time of a process and its threads, in milliseconds. */
function cpuOf(pid = 0): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

/** Publishes to the healthy client at a steady rate. Returns the milliseconds that each event took from its request to the client. */
async function watch(target: Target, until: number): Promise<number[]> {
  const { broker, server } = target;
  const client = await new SocketClient(`${server.url}${broker.path("connect")}?channel=healthy`).untilReady();
  const startedAt: number[] = [];
  const latencies: number[] = [];
  let received = 0;
  client.socket.on("data", () => {
    for (; received < client.data.length; received++) {
      const index = Number(client.data[received]?.split(" ")[0]);
      latencies.push(performance.now() - (startedAt[index] as number));
    }
  });
  const publishing: Promise<unknown>[] = [];
  for (let index = 0; performance.now() < until; index++) {
    startedAt.push(performance.now());
    publishing.push(
      broker.request("broadcast?channel=healthy", {
        method: "POST",
        body: `${index} x`,
        headers: { authorization: "Bearer secret" },
      }),
    );
    await sleep(1_000 / RATE);
  }
  await Promise.all(publishing);
  await client.until(({ data }) => data.length === startedAt.length);
  await sleep(0);
  expect(client.control("gap")).toEqual([]);
  // Publishers are concurrent, so the order of their events is the order in which they arrived.
  expect(new Set(client.data).size).toBe(startedAt.length);
  client.leave();
  return latencies;
}

/** Sends the requests of an attack, evenly. */
async function attackUntil(attack: Attack, target: Target, until: number): Promise<void> {
  if (attack.perSecond === 0) return;
  for (let index = 0; performance.now() < until; index++) {
    attack.request(target, index);
    await sleep(1_000 / attack.perSecond);
  }
}

const wanted = platforms.filter((platform) =>
  only.length > 0 ? only.includes(platform) : platform !== "deno-serve" && platform !== "node-srvx",
);
for (const [name, attack] of Object.entries(attacks).filter(([key]) => chosen.length === 0 || chosen.includes(key)))
  test.for<Platform>(wanted)(
    `${name} (${attack.what}) on %s: the healthy client receives everything`,
    { timeout: seconds * 1_000 + 120_000 },
    async (platform) => {
      const server = await startServer(platform);
      try {
        const broker = await server.createBroker({ timeout: 60_000, ...attack.options });
        if (attack.history) await broker.control("history", attack.history);
        const target: Target = { server, broker, sent: 0, requests: 0, sockets: [] };
        const before = cpuOf(server.process.pid);
        const memory = server.memory();
        const start = performance.now();
        const end = start + seconds * 1_000;
        const [latencies] = await Promise.all([watch(target, end), attackUntil(attack, target, end)]);
        const cpu = cpuOf(server.process.pid) - before;
        for (const socket of target.sockets) socket.destroy();
        console.log(
          `${name.padEnd(8)} ${platform.padEnd(10)} attacker: ${target.requests} requests, ${Math.round(target.sent / 1_000)} kB; ` +
            `server: ${Math.round((100 * cpu) / (performance.now() - start))} % CPU, +${Math.round((server.memory() - memory) / 1e6)} MB; ` +
            `healthy client: p50 ${quantile(latencies, 0.5).toFixed(1)} ms, p99 ${quantile(latencies, 0.99).toFixed(1)} ms, ` +
            `max ${Math.max(...latencies).toFixed(1)} ms`,
        );
      } finally {
        server.stop();
      }
    },
  );
