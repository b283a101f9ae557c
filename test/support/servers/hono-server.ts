import { type ChildProcess, spawn } from "node:child_process";
import { freePort, workerdConfig } from "./server.ts";

/** The ways to serve a Hono app; on Bun, both ways to hand on its server. */
export const honoPlatforms = ["bun", "bun-env", "deno", "node", "workerd"] as const;
export type HonoPlatform = (typeof honoPlatforms)[number];

const AGENTS: Record<HonoPlatform, string> = {
  bun: "Bun/",
  "bun-env": "Bun/",
  deno: "Deno/",
  node: "Node.js/",
  workerd: "Cloudflare-Workers",
};
const bin = (name: string): string => new URL(`../../node_modules/.bin/${name}`, import.meta.url).pathname;
const entry = (name: string): string => new URL(`../wire/servers/hono-${name}.ts`, import.meta.url).pathname;

async function command(platform: HonoPlatform, port: number): Promise<string[]> {
  switch (platform) {
    case "bun":
      return [bin("bun"), entry("bun")];
    case "bun-env":
      return [bin("bun"), entry("bun"), "env"];
    case "deno":
      return [bin("deno"), "run", "-A", entry("deno")];
    case "node":
      return [bin("node"), entry("node")];
    case "workerd":
      return [bin("workerd"), "serve", await workerdConfig(entry("workerd"), port)];
  }
}

interface HonoState {
  readonly clients: number;
  readonly ended: readonly { clientId: string; reason: string }[];
  readonly errors: readonly string[];
}

/** A Hono app that is served. */
export class HonoServer {
  readonly url: string;
  output = "";
  readonly #process: ChildProcess;

  constructor(url: string, process: ChildProcess) {
    this.url = url;
    this.#process = process;
    for (const stream of [process.stdout, process.stderr]) stream?.on("data", (chunk) => (this.output += chunk));
  }

  publish(data: string, path = "/events/broadcast"): Promise<Response> {
    return fetch(this.url + path, { method: "POST", body: data, headers: { authorization: "Bearer secret" } });
  }

  /** Asks again until it is so; the test's own limit ends what never becomes so. */
  async until(holds: (state: HonoState) => boolean): Promise<HonoState> {
    for (;;) {
      const state = (await (await fetch(`${this.url}/state`)).json()) as HonoState;
      if (holds(state)) return state;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  get exited(): boolean {
    return this.#process.exitCode !== null;
  }

  stop(): void {
    this.#process.kill("SIGKILL");
  }
}

/** Serves the app of servers/hono-app.ts this way, and waits until it answers. */
export async function startHonoServer(platform: HonoPlatform, env: Record<string, string> = {}): Promise<HonoServer> {
  const port = await freePort();
  const [program = "", ...args] = await command(platform, port);
  const child = spawn(program, args, {
    env: { ...process.env, ...env, PORT: String(port), NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const server = new HonoServer(`http://127.0.0.1:${port}`, child);
  process.on("exit", () => server.stop());
  for (;;) {
    if (server.exited) throw new Error(`${platform} did not start:\n${server.output}`);
    const agent = await fetch(server.url).then(
      (response) => response.text(),
      () => "",
    );
    if (agent.startsWith(AGENTS[platform])) return server;
    if (agent) throw new Error(`${platform} is ${agent}`);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}
