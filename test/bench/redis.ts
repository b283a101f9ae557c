import { spawn, spawnSync } from "node:child_process";
import { createConnection } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "./outside.ts";

const PROGRAM = process.env.REDIS_SERVER ?? "redis-server";
export const hasRedis: boolean = spawnSync(PROGRAM, ["--version"]).status === 0;

/** A Redis that keeps nothing on disk. It ends with this process. */
export async function startRedis(): Promise<string> {
  const port = await freePort();
  const options = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
  const server = spawn(PROGRAM, options, { stdio: "ignore" });
  process.once("exit", () => server.kill("SIGKILL"));
  for (let attempt = 0; attempt < 200; attempt++) {
    if (await answers(port)) return `redis://127.0.0.1:${port}`;
    await sleep(20);
  }
  throw new Error("starting redis-server: it does not listen after 4 s");
}

const answers = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = createConnection({ port, host: "127.0.0.1" });
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
