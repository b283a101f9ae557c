/**
 * The server under test, the same on every runtime: brokers made on demand, each below a path of its own, and a way to make
 * them work hard and to look inside. Runtime-neutral: what a runtime has to give comes in by `Host`.
 */
import {
  type Broker,
  type BrokerOptions,
  type ClientInfo,
  createBroker,
  type Engine,
  type LogOptions,
  memoryEngine,
} from "../../../src/index.ts";
import { breakableEngine, type Faults } from "./breakable-engine.ts";
import { authorizes, Decision, errorHandlers } from "./hooks.ts";
import { activeTimers } from "./timers.ts";

export interface Host {
  /** Forces a collection. */
  gc(): void | Promise<void>;
  /** Bytes of the heap in use; `null` where the runtime does not tell. */
  heapUsed(): number | null;
  /** Where the memory engine needs to be told where it is. @default memoryEngine */
  engine?(options: object): Engine;
}

/** What a test may set: every option that is data, the bounds of the memory engine, and hooks by name. */
export type Wish = Omit<
  BrokerOptions,
  "authorize" | "engine" | "errorHandler" | "onConnect" | "onDisconnect" | "onError" | "publishToken" | "serialize"
> & {
  readonly authorize?: keyof typeof authorizes;
  readonly errorHandler?: keyof typeof errorHandlers;
  /** With `breakable` it can be told to fail. */
  readonly engine?: LogOptions & { readonly breakable?: boolean };
  /** `null` for none. @default "secret" */
  readonly publishToken?: string | null;
};

/** Infinity does not survive JSON. */
const revive = (_key: string, value: unknown): unknown => (value === "Infinity" ? Infinity : value);

/** What the broker answers; it knows nothing of the last. */
const FACE = new Set(["connect", "broadcast", "nowhere"]);

interface Stage {
  broker: Broker;
  ended: { clientId: string; reason: string }[];
  errors: string[];
  seen: WeakRef<ClientInfo>[];
  /** How many the broker was given. */
  requests: number;
  /** How many of them told by their signal that the client left; counted with a breakable engine only, because to ask may change it. */
  aborted: number;
  watched: boolean;
  decision: Decision;
  faults: Faults;
  flood?: Promise<unknown>;
}

export function createApp(host: Host): (request: Request, context?: unknown) => Promise<Response> {
  const stages = new Map<string, Stage>();

  function make(name: string, { authorize, engine = {}, errorHandler, publishToken, ...wish }: Wish): Stage {
    const ended: Stage["ended"] = [];
    const errors: string[] = [];
    const seen: Stage["seen"] = [];
    const decision = new Decision();
    const faults: Faults = { subscribing: 0 };
    const { breakable, ...bounds } = engine;
    const memory = (host.engine ?? memoryEngine)(bounds);
    const broker = createBroker({
      ...wish,
      publishToken: publishToken === null ? undefined : (publishToken ?? "secret"),
      ...(authorize ? { authorize: (attempt) => authorizes[authorize](attempt, decision) } : {}),
      ...(errorHandler ? { errorHandler: errorHandlers[errorHandler] } : {}),
      engine: breakable ? breakableEngine(memory, faults, decision) : memory,
      paths: { connect: `/${name}/connect`, broadcast: `/${name}/broadcast` },
      onConnect: ({ client }) => seen.push(new WeakRef(client)),
      onDisconnect: ({ client, reason }) => ended.push({ clientId: client.clientId, reason }),
      onError: ({ stage, error }) => errors.push(`${stage}: ${String(error)}`),
    });
    return { broker, ended, errors, seen, requests: 0, aborted: 0, watched: breakable === true, decision, faults };
  }

  /** Publishes numbered events: `{"n":0,"pad":"…"}`. */
  async function flood(broker: Broker, { count = 1, bytes = 0, channel = "", every = 1 }): Promise<void> {
    const pad = "x".repeat(bytes);
    const options = channel ? { channel } : {};
    for (let n = 0; n < count; n++) {
      const published = broker.broadcast(`${n} ${pad}`, options);
      if (n % every === every - 1) await published;
    }
  }

  async function control(stage: Stage, verb: string, wish: Record<string, unknown>): Promise<unknown> {
    const { broker } = stage;
    if (verb === "flood") {
      const work = flood(broker, wish);
      stage.flood = work;
      if (!wish.background) await work;
      return {};
    }
    if (verb === "flooded") return void (await stage.flood);
    if (verb === "report") {
      const { report } = await broker.broadcast("reported", { report: true });
      return await report;
    }
    if (verb === "decide") return void stage.decision.decide();
    if (verb === "break") return void Object.assign(stage.faults, { append: undefined, subscribe: undefined }, wish);
    if (verb === "disconnect") return await broker.disconnect(String(wish.id), wish);
    if (verb === "close") {
      const first = wish.first ? broker.broadcast(String(wish.first)) : undefined;
      const closed = broker.close(wish);
      if (wish.background) return {};
      await closed;
      await first;
      return {};
    }
    if (verb === "state") {
      for (let round = 0; wish.collect && round < 4; round++) {
        await host.gc();
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      return {
        stats: broker.stats(),
        ended: stage.ended,
        errors: stage.errors,
        /** Connections that there ever were. */
        connected: stage.seen.length,
        requests: stage.requests,
        aborted: stage.aborted,
        subscribing: stage.faults.subscribing,
        /** Connections whose object is still in memory. */
        alive: stage.seen.filter((client) => client.deref()).length,
        timers: activeTimers(),
        heapUsed: host.heapUsed(),
      };
    }
    throw new Error(`there is no verb ${verb}`);
  }

  return async (request, context) => {
    // By hand, because with a Host that is none this is no URL.
    const [, name = "", verb = ""] = /^(?:https?:\/\/[^/]*)?\/([^/?]*)\/?([^/?]*)/.exec(request.url) ?? [];
    if (name === "") return new Response(navigator.userAgent);
    if (FACE.has(verb)) {
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
      else if (stage) return Response.json((await control(stage, verb, wish)) ?? {});
      return Response.json({});
    } catch (error) {
      return new Response(String(error), { status: 500 });
    }
  };
}
