// The process of a mount: it is started, controlled and watched by the test.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { promisify } from "node:util";
import { exchange, type HttpRequestOptions, type HttpResponse, RawHttpClient } from "../support/clients/http-client.ts";
import { SocketClient } from "../support/clients/socket-client.ts";
import { freePort } from "../support/servers/server.ts";
import type { Mount } from "./mounts.ts";
import type { Calls, MountState, Reply } from "./protocol.ts";

const root = new URL("../../", import.meta.url).pathname;
const folder = new URL("./", import.meta.url).pathname;
/** The environment of a user's server. Some programs behave in another way in a test, or in CI. */
const env: Record<string, string | undefined> = {
  ...Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(?:CI|TEST|VITEST.*|DEV|PROD|MODE)$/.test(name)),
  ),
  NODE_ENV: "production",
  NO_COLOR: "1",
  HOST: "127.0.0.1",
  ASTRO_TELEMETRY_DISABLED: "1",
  ASTRO_NODE_LOGGING: "disabled",
  NEXT_TELEMETRY_DISABLED: "1",
};

const builds = new Map<string, Promise<void>>();

/** Builds the app of a mount, where its framework has a build. Mounts share it. */
export async function buildApp({ build }: Mount): Promise<void> {
  if (!build) return;
  const key = JSON.stringify(build);
  let built = builds.get(key);
  if (!built) builds.set(key, (built = buildOnce(build)));
  await built;
}

async function buildOnce({ app, command: [program, ...args], env: own }: NonNullable<Mount["build"]>): Promise<void> {
  try {
    await promisify(execFile)(`${root}node_modules/.bin/node`, [`${folder}node_modules/${program}`, ...args], {
      cwd: `${folder}apps/${app}`,
      env: { ...env, ...own },
    });
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    throw new Error(`Building test/mounts/apps/${app}: it failed. Its output:\n${stdout}${stderr}`);
  }
}

/** Processes to end when a test run is interrupted. */
const running = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

export class MountServer {
  readonly url: string;
  /** Everything that the process printed after its URL. */
  output = "";
  /** Whether a test has ended it. */
  isTerminated = false;
  readonly #child: ChildProcess;
  readonly #replies = new Map<number, (result: object | undefined) => void>();
  #calls = 0;

  constructor(url: string, child: ChildProcess) {
    this.url = url;
    this.#child = child;
    child.on("message", ({ id, result }: Reply) => {
      this.#replies.get(id)?.(result);
      this.#replies.delete(id);
    });
    child.once("exit", () => {
      for (const reply of this.#replies.values()) reply(undefined);
    });
  }

  /** Starts the server of a mount, and waits until it prints its URL. */
  static async start({ name, server, runtime = "node" }: Mount, options: object): Promise<MountServer> {
    const port = await freePort();
    const child = spawn(`${root}node_modules/.bin/${runtime}`, [`${folder}servers/${server}.ts`], {
      cwd: folder,
      env: { ...env, PORT: String(port), BROKER: JSON.stringify(options) },
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    running.add(child);
    child.once("exit", () => running.delete(child));
    const started = new MountServer(`http://127.0.0.1:${port}`, child);
    for (const stream of [child.stdout, child.stderr]) stream?.on("data", (data) => (started.output += data));
    const ready = `${started.url}\n`;
    while (!started.output.includes(ready)) {
      if (started.exit !== undefined) throw new Error(`Starting ${name}: it ended. Its output:\n${started.output}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    // What a framework prints while it starts is its own.
    started.output = started.output.slice(started.output.indexOf(ready) + ready.length);
    return started;
  }

  /** The exit code or the signal, or `undefined` while the process runs. */
  get exit(): number | string | undefined {
    return this.#child.exitCode ?? this.#child.signalCode ?? undefined;
  }

  async call<Name extends keyof Calls>(name: Name, args: Calls[Name][0]): Promise<Calls[Name][1]> {
    const id = this.#calls++;
    const result = await new Promise<object | undefined>((resolve) => {
      this.#replies.set(id, resolve);
      if (this.#child.connected) this.#child.send({ id, name, args });
      else resolve(undefined);
    });
    if (!result) throw new Error(`Calling ${name}: the process has ended (${this.exit}).`);
    return result as Calls[Name][1];
  }

  state(): Promise<MountState> {
    return this.call("state", {});
  }

  /** Sends a signal that ends the process, sooner or later. */
  terminate(signal: "SIGTERM" | "SIGINT"): void {
    this.isTerminated = true;
    this.#child.kill(signal);
  }

  /** Kills the process. Resolves when it has ended. */
  async kill(): Promise<void> {
    if (this.exit !== undefined) return;
    const exit = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await exit;
  }

  /** Opens a stream. The query has its leading question mark. */
  connect(query = ""): SocketClient {
    return new SocketClient(`${this.url}/events/connect${query}`);
  }

  /** Publishes with the token. As JSON by default, because some frameworks refuse other types from elsewhere (CSRF). */
  publish(options: HttpRequestOptions, path = "/events/broadcast"): Promise<HttpResponse> {
    return exchange(this.url, path, {
      method: "POST",
      ...options,
      headers: { authorization: "Bearer secret", "content-type": "application/json", ...options.headers },
    });
  }

  raw(): RawHttpClient {
    return new RawHttpClient(this.url);
  }
}
