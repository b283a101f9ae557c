// Starts the Hono app of test/wire on every platform.
import { type ChildProcess, spawn } from "node:child_process";
import { freePort, ON_ITS_OWN, workerdConfig } from "./server.ts";

/** The ways to serve a Hono app. Bun has two ways to pass its server to the app. */
export const honoPlatforms = ["bun", "bun-env", "deno", "node", "workerd"] as const;
export type HonoPlatform = (typeof honoPlatforms)[number];

const AGENTS: Record<HonoPlatform, string> = {
  bun: "Bun/",
  "bun-env": "Bun/",
  deno: "Deno/",
  node: "Node.js/",
  workerd: "Cloudflare-Workers",
};
const bin = (name: string): string => new URL(`../../../node_modules/.bin/${name}`, import.meta.url).pathname;
const entry = (name: string): string => new URL(`../../wire/servers/hono-${name}.ts`, import.meta.url).pathname;

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

/** The process of a Hono app. */
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
    return fetch(this.url + path, {
      method: "POST",
      body: data,
      headers: { authorization: "Bearer secret", ...ON_ITS_OWN },
    });
  }

  /** Polls the state until `condition` is true. Otherwise the time limit of the test ends it. */
  async until(condition: (state: HonoState) => boolean): Promise<HonoState> {
    for (;;) {
      const state = (await (await fetch(`${this.url}/state`, { headers: { ...ON_ITS_OWN } })).json()) as HonoState;
      if (condition(state)) return state;
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

/** Serves the app of test/wire/servers/hono-app.ts on a platform, and waits until it answers. */
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
    if (server.exited) throw new Error(`Starting ${platform}: it ended. Its output:\n${server.output}`);
    const agent = await fetch(server.url).then(
      (response) => response.text(),
      () => "",
    );
    if (agent.startsWith(AGENTS[platform])) return server;
    if (agent) throw new Error(`Starting ${platform}: its user agent is "${agent}", and not ${AGENTS[platform]}.`);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}
