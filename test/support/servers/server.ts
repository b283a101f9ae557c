// Starts the server under test on every platform, and controls the brokers in it.
import { type ChildProcess, spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { connect as connectTcp, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { inject } from "vitest";
import type { TestBrokerOptions } from "../../wire/servers/app.ts";
import { exchange, type HttpRequestOptions, type HttpResponse } from "../clients/http-client.ts";
import { SocketClient } from "../clients/socket-client.ts";
import { wranglerCommand } from "./wrangler.ts";

/** The platforms: one for each way to run a fetch handler. */
export const platforms = [
  "bun",
  "deno",
  "deno-serve",
  "node",
  "node-hono",
  "node-srvx",
  "workerd",
  "hub-bridge",
  "hub-direct",
] as const;
/** All platforms, and the hub as its users run it in development: `wrangler dev` has a proxy in front that buffers and hides errors. */
export const platformsWithWrangler = [...platforms, "hub-bridge-wrangler", "hub-direct-wrangler"] as const;
/** All platforms, and a handler on `node:http` that pipes the body and does not say that a client left, as in Express. */
export const platformsWithPipe = [...platforms, "node-pipe"] as const;
export type Platform = (typeof platformsWithWrangler | typeof platformsWithPipe)[number];

/** Whether the broker is a Durable Object behind a Worker. */
export const isHub = (platform: Platform): boolean => platform.startsWith("hub-");
/** Whether `wrangler dev` runs the server. */
export const usesWrangler = (platform: Platform): boolean => platform.endsWith("-wrangler");
/** Whether workerd runs the server. */
export const usesWorkerd = (platform: Platform): boolean => platform === "workerd" || isHub(platform);

const AGENTS: Record<Platform, string> = {
  bun: "Bun/",
  deno: "Deno/",
  "deno-serve": "Deno/",
  node: "Node.js/",
  "node-hono": "Node.js/",
  "node-srvx": "Node.js/",
  "node-pipe": "Node.js/",
  workerd: "Cloudflare-Workers",
  "hub-bridge": "Cloudflare-Workers",
  "hub-direct": "Cloudflare-Workers",
  "hub-bridge-wrangler": "Cloudflare-Workers",
  "hub-direct-wrangler": "Cloudflare-Workers",
};

const bin = (name: string): string => new URL(`../../../node_modules/.bin/${name}`, import.meta.url).pathname;
const entry = (name: string): string => new URL(`../../wire/servers/${name}.ts`, import.meta.url).pathname;

/** Returns the command that starts a server. workerd reports nothing about its heap, so it listens for a debugger on `inspectorPort`. */
async function command(platform: Platform, port: number, inspectorPort?: number): Promise<string[]> {
  const inspector = inspectorPort === undefined ? [] : [`--inspector-addr=127.0.0.1:${inspectorPort}`];
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
    case "node":
    case "node-hono":
    case "node-srvx":
    case "node-pipe":
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

/** Writes a configuration for workerd with a Durable Object `Stage` and variables. Returns its path. */
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

/**
 * Returns a port that nothing listens on. It lies outside the range from which systems assign ports, because another process or a connection
 * could get such a port before it is used. Other processes that run tests get other ports, also before this one is used.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 11_000 + Math.floor(Math.random() * 20_000);
    if (!(await reserve(port))) continue;
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

/** Takes a port of UDP, which no server of a test uses, as a sign for other processes of tests. It is free again when this process ends. */
async function reserve(port: number): Promise<boolean> {
  const sign = createSocket("udp4").unref();
  try {
    await new Promise<void>((resolve, reject) => {
      sign.once("error", reject).bind({ port, address: "127.0.0.1", exclusive: true }, resolve);
    });
    return true;
  } catch {
    sign.close();
    return false;
  }
}

/** The process of a server. It has several brokers, each below a path of its own. */
export class Server {
  readonly platform: Platform;
  readonly port: number;
  readonly process: ChildProcess;
  readonly url: string;
  /** The user agent of the runtime. */
  agent = "";
  /** Everything that the process has printed. */
  output = "";
  #brokers = 0;

  constructor(platform: Platform, port: number, process: ChildProcess) {
    this.platform = platform;
    this.port = port;
    this.process = process;
    this.url = `http://127.0.0.1:${port}`;
    for (const stream of [process.stdout, process.stderr]) stream?.on("data", (chunk) => (this.output += chunk));
  }

  /** Creates a new broker in the server. */
  async createBroker(options: TestBrokerOptions = {}): Promise<TestBroker> {
    const broker = new TestBroker(this, `s${this.#brokers++}`);
    await broker.control("make", options);
    return broker;
  }

  /** Returns the resident memory of the process in bytes, as the kernel counts it. */
  memory(): number {
    const status = readFileSync(`/proc/${this.process.pid}/status`, "utf8");
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
  }

  /** Whether the socket of the server's side to a client's port is open, as the kernel sees it. */
  isConnected(clientPort = 0): boolean {
    const hex = (port: number): string => `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;
    return readFileSync("/proc/net/tcp", "utf8").includes(` ${hex(this.port)} ${hex(clientPort)} 01 `);
  }

  stop(): void {
    // workerd does not end on SIGTERM while a stream is open.
    this.process.kill("SIGKILL");
  }

  /** Ends the process at once. Resolves when its port is free. */
  async kill(): Promise<void> {
    const exit = once(this.process, "exit");
    this.stop();
    await exit;
  }

  /** Ends the process after its open requests. Resolves when it has ended and its port is free. */
  async stopGracefully(): Promise<void> {
    const exit = once(this.process, "exit");
    this.process.kill("SIGTERM");
    await exit;
  }
}

/** A connection of its own for a request: a server may be about to close one that is idle, and then the request would fail. */
export const ON_ITS_OWN = { connection: "close" } as const;

/** Infinity has no form in JSON. */
const replaceInfinity = (_key: string, value: unknown): unknown => (value === Infinity ? "Infinity" : value);

/** The state of a broker and its server. */
export interface BrokerState {
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

/** One broker in a server. Tests control it over HTTP. */
export class TestBroker {
  readonly server: Server;
  readonly name: string;

  constructor(server: Server, name: string) {
    this.server = server;
    this.name = name;
  }

  /** Returns the path of an endpoint. */
  path(rest: string): string {
    return `/${this.name}/${rest}`;
  }

  /** Runs a command of test/wire/servers/control.ts. */
  async control<T = unknown>(verb: string, body: object = {}): Promise<T> {
    const response = await fetch(this.server.url + this.path(verb), {
      method: "POST",
      body: JSON.stringify(body, replaceInfinity),
      headers: { ...ON_ITS_OWN },
    });
    if (!response.ok)
      throw new Error(`Running ${verb} on ${this.server.platform}: ${response.status} ${await response.text()}`);
    return (await response.json()) as T;
  }

  /** Connects a client and waits for its `fanwire-ready`. */
  join(query = "", headers: Record<string, string> = {}): Promise<SocketClient> {
    return new SocketClient(this.server.url + this.path(`connect${query}`), headers).untilReady();
  }

  /** Connects a client and waits until its response has ended. */
  joinUntilEnded(query = "", headers: Record<string, string> = {}): Promise<SocketClient> {
    return new SocketClient(this.server.url + this.path(`connect${query}`), headers).untilEnded();
  }

  /** Sends one request on a new connection. */
  request(path: string, options?: HttpRequestOptions): Promise<HttpResponse> {
    return exchange(this.server.url, this.path(path), options);
  }

  publish(data: string, query = ""): Promise<Response> {
    return fetch(this.server.url + this.path(`broadcast${query}`), {
      method: "POST",
      body: data,
      headers: { authorization: "Bearer secret", ...ON_ITS_OWN },
    });
  }

  /** Returns the state, after a garbage collection if `collect` is true. */
  state(collect = false): Promise<BrokerState> {
    return this.control<BrokerState>("state", { collect });
  }

  /** Polls the state until `condition` is true. Otherwise the time limit of the test ends it. */
  async untilState(condition: (state: BrokerState) => boolean, collect = false): Promise<BrokerState> {
    for (;;) {
      const state = await this.state(collect);
      if (condition(state)) return state;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** Servers to end when a test run is interrupted. */
const running = new Set<Server>();
process.on("exit", () => {
  for (const server of running) server.stop();
});

/** Starts a server and waits until it answers. With `fixedPort` it takes the place of a server that has ended. */
export async function startServer(
  platform: Platform,
  {
    fixedPort,
    inspectorPort,
    env = {},
  }: {
    readonly fixedPort?: number;
    readonly inspectorPort?: number;
    readonly env?: Readonly<Record<string, string>>;
  } = {},
): Promise<Server> {
  const port = fixedPort ?? (await freePort());
  const [program = "", ...args] = await command(platform, port, inspectorPort);
  const child = spawn(program, args, {
    env: { ...process.env, ...env, PORT: String(port), NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const server = new Server(platform, port, child);
  running.add(server);
  child.once("exit", () => running.delete(server));
  for (;;) {
    if (child.exitCode !== null) throw new Error(`Starting ${platform}: it ended. Its output:\n${server.output}`);
    server.agent = await fetch(server.url).then(
      (response) => response.text(),
      () => "",
    );
    if (server.agent) {
      if (!server.agent.startsWith(AGENTS[platform]))
        throw new Error(`Starting ${platform}: its user agent is "${server.agent}", and not ${AGENTS[platform]}.`);
      console.log(`${inject("part")} on ${server.agent} (${platform})`);
      return server;
    }
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}

/** Waits until a process listens on a port. */
export async function untilListening(port: number): Promise<void> {
  const isOpen = (): Promise<boolean> =>
    new Promise((resolve) => {
      const socket = connectTcp(port, "127.0.0.1", () => resolve(socket.end() !== undefined));
      socket.on("error", () => resolve(false));
    });
  while (!(await isOpen())) await new Promise((resolve) => setTimeout(resolve, 30));
}
