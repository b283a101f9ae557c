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
  memoryEngine,
} from "../../../src/index.ts";
import { activeTimers } from "./timers.ts";

export interface Host {
  /** Forces a collection. */
  gc(): void | Promise<void>;
  /** Bytes of the heap in use; `null` where the runtime does not tell. */
  heapUsed(): number | null;
  /** Where the memory engine needs to be told where it is. @default memoryEngine */
  engine?(options: object): Engine;
}

/** What a test may set: the numbers, and the bounds of the memory engine. */
type Wish = Pick<BrokerOptions, "timeout" | "tolerance" | "heartbeat" | "retry" | "publishToken"> & { engine?: object };

/** Infinity does not survive JSON. */
const revive = (_key: string, value: unknown): unknown => (value === "Infinity" ? Infinity : value);

interface Stage {
  broker: Broker;
  ended: { clientId: string; reason: string }[];
  errors: string[];
  seen: WeakRef<ClientInfo>[];
  flood?: Promise<unknown>;
}

export function createApp(host: Host): (request: Request, context?: unknown) => Promise<Response> {
  const stages = new Map<string, Stage>();

  function make(name: string, { engine, ...wish }: Wish): Stage {
    const ended: Stage["ended"] = [];
    const errors: string[] = [];
    const seen: Stage["seen"] = [];
    const broker = createBroker({
      publishToken: "secret",
      ...wish,
      engine: (host.engine ?? memoryEngine)(engine ?? {}),
      paths: { connect: `/${name}/connect`, broadcast: `/${name}/broadcast` },
      onConnect: ({ client }) => seen.push(new WeakRef(client)),
      onDisconnect: ({ client, reason }) => ended.push({ clientId: client.clientId, reason }),
      onError: ({ stage, error }) => errors.push(`${stage}: ${String(error)}`),
    });
    return { broker, ended, errors, seen };
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
    if (verb === "disconnect") return await broker.disconnect(String(wish.id), wish);
    if (verb === "close") {
      const first = wish.first ? broker.broadcast(String(wish.first)) : undefined;
      await broker.close(wish);
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
        /** Connections whose object is still in memory. */
        alive: stage.seen.filter((client) => client.deref()).length,
        timers: activeTimers(),
        heapUsed: host.heapUsed(),
      };
    }
    throw new Error(`there is no verb ${verb}`);
  }

  return async (request, context) => {
    const [, name = "", verb = ""] = new URL(request.url).pathname.split("/");
    if (name === "") return new Response(navigator.userAgent);
    if (verb === "connect" || verb === "broadcast") {
      const stage = stages.get(name);
      return stage ? stage.broker.fetch(request, context) : new Response("no such stage", { status: 500 });
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
