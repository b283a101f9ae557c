// Starts a Redis server for a measurement.
import { spawn, spawnSync } from "node:child_process";
import { createConnection } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "./process-usage.ts";

const PROGRAM = process.env.REDIS_SERVER ?? "redis-server";
export const hasRedis: boolean = spawnSync(PROGRAM, ["--version"]).status === 0;

/** Starts a Redis that stores nothing on disk and ends with this process. Returns its URL. */
export async function startRedis(): Promise<string> {
  const port = await freePort();
  const options = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
  const server = spawn(PROGRAM, options, { stdio: "ignore" });
  process.once("exit", () => server.kill("SIGKILL"));
  for (let attempt = 0; attempt < 200; attempt++) {
    if (await answers(port)) return `redis://127.0.0.1:${port}`;
    await sleep(20);
  }
  throw new Error("starting redis-server: it did not listen within 4 s");
}

const answers = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = createConnection({ port, host: "127.0.0.1" });
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
