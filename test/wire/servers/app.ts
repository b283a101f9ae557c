// The server under test, the same on every runtime: test brokers are created on demand, each below a path of its own. `POST /<name>/<action>`
// controls one and reads its state. `Host` supplies what differs between runtimes.
import { type BrokerOptions, createBroker, type Engine, type LogOptions, memoryEngine } from "../../../src/index.ts";
import { breakableEngine, type Faults } from "./breakable-engine.ts";
import { control, type Host, type TestBroker } from "./control.ts";
import { authorizes, Decision, errorHandlers } from "./hooks.ts";
import { TestRuns } from "./runs.ts";

/** Options of a test broker: every option of the broker that is data, the bounds of the memory engine, and hooks by name. */
export type TestBrokerOptions = Omit<
  BrokerOptions,
  "authorize" | "engine" | "errorHandler" | "onConnect" | "onDisconnect" | "onError" | "publishToken" | "serialize"
> & {
  readonly authorize?: keyof typeof authorizes;
  readonly errorHandler?: keyof typeof errorHandlers;
  /** With `breakable` the action `break` makes the engine fail. Brokers with the same `sharedAs` share one engine. */
  readonly engine?: LogOptions & {
    readonly breakable?: boolean;
    readonly idempotencyWindow?: number;
    readonly sharedAs?: string;
  };
  /** `null` sets no token. @default "secret" */
  readonly publishToken?: string | null;
};

/** Reads `Infinity`, which does not survive JSON. */
export const revive = (_key: string, value: unknown): unknown => (value === "Infinity" ? Infinity : value);

/** Paths that go to the broker, which does not know the last one. Paths that are not an action go to the broker too. */
export const HANDLER_PATHS = new Set(["connect", "broadcast", "nowhere"]);

export function createApp(host: Host): (request: Request, context?: unknown) => Promise<Response> {
  const brokers = new Map<string, TestBroker>();
  const shared = new Map<string, Engine>();

  function engineOf(
    { breakable, sharedAs, ...bounds }: NonNullable<TestBrokerOptions["engine"]>,
    faults: Faults,
    decision: Decision,
  ): Engine {
    const known = shared.get(sharedAs ?? "");
    if (known) return known;
    const memory = (host.engine ?? memoryEngine)(bounds);
    if (sharedAs !== undefined) shared.set(sharedAs, memory);
    return breakable ? breakableEngine(memory, faults, decision) : memory;
  }

  function create(
    name: string,
    { authorize, engine = {}, errorHandler, publishToken, ...data }: TestBrokerOptions,
  ): TestBroker {
    const ended: TestBroker["ended"] = [];
    const errors: string[] = [];
    const seen: TestBroker["seen"] = [];
    const decision = new Decision();
    const faults: Faults = { subscribing: 0 };
    const { breakable, sharedAs: _, ...bounds } = engine;
    const options = {
      ...data,
      publishToken: publishToken === null ? undefined : (publishToken ?? "secret"),
      ...(authorize ? { authorize: (access) => authorizes[authorize](access, decision) } : {}),
      ...(errorHandler ? { errorHandler: errorHandlers[errorHandler] } : {}),
      paths: { connect: `/${name}/connect`, broadcast: `/${name}/broadcast` },
      onConnect: ({ client }) => seen.push(new WeakRef(client)),
      onDisconnect: ({ client, reason }) => ended.push({ clientId: client.clientId, reason }),
      onError: ({ stage, error }) => errors.push(`${stage}: ${String(error)}`),
    } satisfies BrokerOptions;
    const broker = host.createBroker
      ? host.createBroker(name, options, bounds)
      : createBroker({ ...options, engine: engineOf(engine, faults, decision) });
    const runs = host.createBroker ? undefined : new TestRuns(broker);
    const counts = { requests: 0, aborted: 0, isWatched: breakable === true };
    return { broker, runs, ended, errors, seen, ...counts, decision, faults };
  }

  return async (request, context) => {
    // Without `URL`, because a request with an invalid Host has an invalid URL.
    const [, name = "", action = ""] = /^(?:https?:\/\/[^/]*)?\/([^/?]*)\/?([^/?]*)/.exec(request.url) ?? [];
    if (name === "") return new Response(navigator.userAgent);
    if (HANDLER_PATHS.has(action) || !/^[a-z]+$/.test(action)) {
      // Clients of a process that this one replaces may come back before a test creates the broker.
      let test = brokers.get(name);
      if (!test) brokers.set(name, (test = create(name, {})));
      const { broker, isWatched } = test;
      test.requests++;
      if (isWatched) request.signal.addEventListener("abort", () => test.aborted++, { once: true });
      return broker.fetch(request, context);
    }
    const { runs } = brokers.get(name) ?? {};
    if (action === "runs") return runs?.respond(request, context) ?? host.serveRun?.(name, request) ?? Response.error();
    try {
      const args = JSON.parse((await request.text()) || "{}", revive);
      if (action === "make") brokers.set(name, create(name, args));
      const test = action === "make" ? undefined : brokers.get(name);
      const result = test && (await (host.control?.(name, test, action, args) ?? control(host, test, action, args)));
      return Response.json(result ?? {});
    } catch (error) {
      return new Response(String(error), { status: 500 });
    }
  };
}
