import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { connect as connectTcp, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { inject } from "vitest";
import type { Wish } from "../../wire/servers/app.ts";
import { type Answer, type Asked, exchange } from "../clients/http-client.ts";
import { SocketClient } from "../clients/socket-client.ts";
import { wranglerCommand } from "./wrangler.ts";

/** The servers that a browser could meet, one for each way of running a fetch handler. */
export const platforms = [
  "bun",
  "deno",
  "deno-serve",
  "node-hono",
  "node-srvx",
  "workerd",
  "hub-bridge",
  "hub-direct",
] as const;
/** Those, and the hub as its users run it at home: `wrangler dev` has a proxy in front that buffers and hides a good deal. */
export const withWrangler = [...platforms, "hub-bridge-wrangler", "hub-direct-wrangler"] as const;
export type Platform = (typeof withWrangler)[number];

/** Whether the broker is a Durable Object behind a Worker. */
export const isHub = (platform: Platform): boolean => platform.startsWith("hub-");
export const onWrangler = (platform: Platform): boolean => platform.endsWith("-wrangler");
export const onWorkerd = (platform: Platform): boolean => platform === "workerd" || isHub(platform);

const AGENTS: Record<Platform, string> = {
  bun: "Bun/",
  deno: "Deno/",
  "deno-serve": "Deno/",
  "node-hono": "Node.js/",
  "node-srvx": "Node.js/",
  workerd: "Cloudflare-Workers",
  "hub-bridge": "Cloudflare-Workers",
  "hub-direct": "Cloudflare-Workers",
  "hub-bridge-wrangler": "Cloudflare-Workers",
  "hub-direct-wrangler": "Cloudflare-Workers",
};

const bin = (name: string): string => new URL(`../../node_modules/.bin/${name}`, import.meta.url).pathname;
const entry = (name: string): string => new URL(`../wire/servers/${name}.ts`, import.meta.url).pathname;

/** At `inspectAt` workerd, which tells nothing about its heap, listens for a debugger. */
async function command(platform: Platform, port: number, inspectAt?: number): Promise<string[]> {
  const inspector = inspectAt === undefined ? [] : [`--inspector-addr=127.0.0.1:${inspectAt}`];
  switch (platform) {
    case "bun":
      return [bin("bun"), "run", entry("bun")];
    case "deno":
      return [bin("deno"), "run", "-A", "--v8-flags=--expose-gc", entry("deno")];
    case "deno-serve":
      return [
        bin("deno"),
        "serve",
        "-A",
        "--host=127.0.0.1",
        `--port=${port}`,
        "--v8-flags=--expose-gc",
        entry("deno"),
        "serve",
      ];
    case "node-hono":
    case "node-srvx":
      return [bin("node"), "--expose-gc", entry(platform)];
    case "workerd":
      return [bin("workerd"), "serve", ...inspector, await workerdConfig(entry("workerd"), port)];
    case "hub-bridge-wrangler":
    case "hub-direct-wrangler":
      return wranglerCommand(entry("hub"), port, { MODE: platform.split("-")[1] as string });
    case "hub-bridge":
    case "hub-direct":
      return [
        bin("workerd"),
        "serve",
        ...inspector,
        await workerdConfig(entry("hub"), port, { MODE: platform.slice(4) }),
      ];
  }
}

/** Writes what workerd needs to serve a Durable Object `Stage`, and gives its path. */
export async function workerdConfig(
  entryPoint: string,
  port: number,
  texts: Readonly<Record<string, string>> = {},
): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "fanwire-workerd-"));
  await build({
    entryPoints: [entryPoint],
    bundle: true,
    format: "esm",
    target: "es2023",
    external: ["cloudflare:workers"],
    outfile: join(folder, "worker.js"),
  });
  const config = join(folder, "config.capnp");
  writeFileSync(
    config,
    `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = (
    modules = [(name = "worker", esModule = embed "worker.js")],
    compatibilityDate = "2026-11-01",
    compatibilityFlags = ["enable_request_signal", "request_signal_passthrough", "no_nodejs_compat"],
    durableObjectNamespaces = [(className = "Stage", uniqueKey = "stage", enableSql = true)],
    durableObjectStorage = (localDisk = "disk"),
    bindings = [(name = "STAGE", durableObjectNamespace = "Stage")${Object.entries(texts)
      .map(([name, text]) => `, (name = "${name}", text = "${text}")`)
      .join("")}],
  )), (name = "disk", disk = (path = "${folder}", writable = true))],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "main")],
  v8Flags = ["--expose-gc"],
);
`,
  );
  return config;
}

/** A port that nobody listens at. Of those that systems hand out by themselves another process, or a connection, could have the same before it is used. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 11_000 + Math.floor(Math.random() * 20_000);
    const probe = createServer().listen(port, "127.0.0.1");
    try {
      await once(probe, "listening");
    } catch {
      continue;
    }
    probe.close();
    await once(probe, "close");
    return port;
  }
}

/** A process that serves. */
export class Server {
  readonly platform: Platform;
  readonly port: number;
  readonly process: ChildProcess;
  readonly url: string;
  /** What the runtime says that it is. */
  agent = "";
  output = "";
  #stages = 0;

  constructor(platform: Platform, port: number, process: ChildProcess) {
    this.platform = platform;
    this.port = port;
    this.process = process;
    this.url = `http://127.0.0.1:${port}`;
    for (const stream of [process.stdout, process.stderr]) stream?.on("data", (chunk) => (this.output += chunk));
  }

  /** A broker of its own, with these options. */
  async stage(options: Wish = {}): Promise<Stage> {
    const stage = new Stage(this, `s${this.#stages++}`);
    await stage.tell("make", options);
    return stage;
  }

  /** Bytes of memory that the process has, by the kernel's count. */
  memory(): number {
    const status = readFileSync(`/proc/${this.process.pid}/status`, "utf8");
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
  }

  stop(): void {
    // workerd does not go on SIGTERM while a stream is open.
    this.process.kill("SIGKILL");
  }

  /** Lets it answer what it has begun to; resolves when it is gone and its address is free. */
  async retire(): Promise<void> {
    const exit = once(this.process, "exit");
    this.process.kill("SIGTERM");
    await exit;
  }
}

const onWire = (_key: string, value: unknown): unknown => (value === Infinity ? "Infinity" : value);

/** What `state` tells. */
export interface State {
  readonly stats: import("../../../src/index.ts").BrokerStats;
  readonly ended: readonly { clientId: string; reason: string }[];
  readonly errors: readonly string[];
  readonly connected: number;
  readonly requests: number;
  readonly aborted: number;
  readonly subscribing: number;
  readonly alive: number;
  readonly timers: number;
  readonly resources: number;
  readonly heapUsed: number | null;
}

/** One broker in a server. */
export class Stage {
  readonly server: Server;
  readonly name: string;

  constructor(server: Server, name: string) {
    this.server = server;
    this.name = name;
  }

  path(rest: string): string {
    return `/${this.name}/${rest}`;
  }

  async tell<T = unknown>(verb: string, body: object = {}): Promise<T> {
    const response = await fetch(this.server.url + this.path(verb), {
      method: "POST",
      body: JSON.stringify(body, onWire),
    });
    if (!response.ok) throw new Error(`${this.server.platform} ${verb}: ${response.status} ${await response.text()}`);
    return (await response.json()) as T;
  }

  /** Connects a client and waits until it is told that it is. */
  join(query = "", headers: Record<string, string> = {}): Promise<SocketClient> {
    return new SocketClient(this.server.url + this.path(`connect${query}`), headers).ready();
  }

  /** Connects a client and waits until its answer has ended. */
  knock(query = "", headers: Record<string, string> = {}): Promise<SocketClient> {
    return new SocketClient(this.server.url + this.path(`connect${query}`), headers).end();
  }

  /** Asks with a request written by hand. */
  ask(path: string, asked?: Asked): Promise<Answer> {
    return exchange(this.server.url, this.path(path), asked);
  }

  publish(data: string, query = ""): Promise<Response> {
    return fetch(this.server.url + this.path(`broadcast${query}`), {
      method: "POST",
      body: data,
      headers: { authorization: "Bearer secret" },
    });
  }

  state(collect = false): Promise<State> {
    return this.tell<State>("state", { collect });
  }

  /** Asks again until it is so; the test's own limit ends what never becomes so. */
  async until(holds: (state: State) => boolean, collect = false): Promise<State> {
    for (;;) {
      const state = await this.state(collect);
      if (holds(state)) return state;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** Servers that would outlive a run that breaks off. */
const running = new Set<Server>();
process.on("exit", () => {
  for (const server of running) server.stop();
});

/** Starts a server of this platform and waits until it answers. At a port that is named it takes the place of one that is gone. */
export async function startServer(
  platform: Platform,
  { at, inspectAt }: { readonly at?: number; readonly inspectAt?: number } = {},
): Promise<Server> {
  const port = at ?? (await freePort());
  const [program = "", ...args] = await command(platform, port, inspectAt);
  const child = spawn(program, args, {
    env: { ...process.env, PORT: String(port), NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const server = new Server(platform, port, child);
  running.add(server);
  child.once("exit", () => running.delete(server));
  for (;;) {
    if (child.exitCode !== null) throw new Error(`${platform} did not start:\n${server.output}`);
    server.agent = await fetch(server.url).then(
      (response) => response.text(),
      () => "",
    );
    if (server.agent) {
      if (!server.agent.startsWith(AGENTS[platform])) throw new Error(`${platform} is ${server.agent}`);
      console.log(`${inject("part")} on ${server.agent} (${platform})`);
      return server;
    }
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}

/** Waits until something listens on a port. */
export async function listens(port: number): Promise<void> {
  const isOpen = (): Promise<boolean> =>
    new Promise((resolve) => {
      const socket = connectTcp(port, "127.0.0.1", () => resolve(socket.end() !== undefined));
      socket.on("error", () => resolve(false));
    });
  while (!(await isOpen())) await new Promise((resolve) => setTimeout(resolve, 30));
}
