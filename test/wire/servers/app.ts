/**
 * The server under test, the same on every runtime: brokers made on demand, each below a path of its own, and a way to make
 * them work hard and to look inside. Runtime-neutral: what a runtime has to give comes in by `Host`.
 */
import { type BrokerOptions, createBroker, type Engine, type LogOptions, memoryEngine } from "../../../src/index.ts";
import { breakableEngine, type Faults } from "./breakable-engine.ts";
import { control, type Host, type Stage } from "./control.ts";
import { authorizes, Decision, errorHandlers } from "./hooks.ts";

/** What a test may set: every option that is data, the bounds of the memory engine, and hooks by name. */
export type Wish = Omit<
  BrokerOptions,
  "authorize" | "engine" | "errorHandler" | "onConnect" | "onDisconnect" | "onError" | "publishToken" | "serialize"
> & {
  readonly authorize?: keyof typeof authorizes;
  readonly errorHandler?: keyof typeof errorHandlers;
  /** With `breakable` it can be told to fail. */
  readonly engine?: LogOptions & { readonly breakable?: boolean; readonly idempotencyWindow?: number };
  /** `null` for none. @default "secret" */
  readonly publishToken?: string | null;
};

/** Infinity does not survive JSON. */
export const revive = (_key: string, value: unknown): unknown => (value === "Infinity" ? Infinity : value);

/** What the broker answers; it knows nothing of the last. It is given what is no verb at all as well. */
export const FACE = new Set(["connect", "broadcast", "nowhere"]);

export function createApp(host: Host): (request: Request, context?: unknown) => Promise<Response> {
  const stages = new Map<string, Stage>();

  function engineOf(bounds: LogOptions, breakable = false, faults: Faults, decision: Decision): Engine {
    const memory = (host.engine ?? memoryEngine)(bounds);
    return breakable ? breakableEngine(memory, faults, decision) : memory;
  }

  function make(name: string, { authorize, engine = {}, errorHandler, publishToken, ...wish }: Wish): Stage {
    const ended: Stage["ended"] = [];
    const errors: string[] = [];
    const seen: Stage["seen"] = [];
    const decision = new Decision();
    const faults: Faults = { subscribing: 0 };
    const { breakable, ...bounds } = engine;
    const options = {
      ...wish,
      publishToken: publishToken === null ? undefined : (publishToken ?? "secret"),
      ...(authorize ? { authorize: (attempt) => authorizes[authorize](attempt, decision) } : {}),
      ...(errorHandler ? { errorHandler: errorHandlers[errorHandler] } : {}),
      paths: { connect: `/${name}/connect`, broadcast: `/${name}/broadcast` },
      onConnect: ({ client }) => seen.push(new WeakRef(client)),
      onDisconnect: ({ client, reason }) => ended.push({ clientId: client.clientId, reason }),
      onError: ({ stage, error }) => errors.push(`${stage}: ${String(error)}`),
    } satisfies BrokerOptions;
    const broker = host.make
      ? host.make(name, options, bounds)
      : createBroker({ ...options, engine: engineOf(bounds, breakable, faults, decision) });
    return { broker, ended, errors, seen, requests: 0, aborted: 0, watched: breakable === true, decision, faults };
  }

  return async (request, context) => {
    // By hand, because with a Host that is none this is no URL.
    const [, name = "", verb = ""] = /^(?:https?:\/\/[^/]*)?\/([^/?]*)\/?([^/?]*)/.exec(request.url) ?? [];
    if (name === "") return new Response(navigator.userAgent);
    if (FACE.has(verb) || !/^[a-z]+$/.test(verb)) {
      // A server that takes the place of another one has its broker before its first client.
      if (!stages.has(name)) stages.set(name, make(name, {}));
      const stage = stages.get(name) as Stage;
      stage.requests++;
      if (stage.watched) request.signal.addEventListener("abort", () => stage.aborted++, { once: true });
      return stage.broker.fetch(request, context);
    }
    try {
      const wish = JSON.parse((await request.text()) || "{}", revive);
      let stage = stages.get(name);
      if (verb === "make") stages.set(name, (stage = make(name, wish)));
      else if (stage)
        return Response.json(
          (await (host.control?.(name, stage, verb, wish) ?? control(host, stage, verb, wish))) ?? {},
        );
      return Response.json({});
    } catch (error) {
      return new Response(String(error), { status: 500 });
    }
  };
}
