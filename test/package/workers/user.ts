// A Worker as a user writes it, against Cloudflare's own types: what does not fit them fails `npm run types`.
import { createBroker, type EventsOf } from "fanwire";
import { BrokerObject, brokerObject, durableEngine, hub, worker } from "fanwire/workers";

interface Env {
  readonly HUB: DurableObjectNamespace<Hub>;
  readonly ROOMS: DurableObjectNamespace<Rooms>;
  readonly TYPED: DurableObjectNamespace<Typed>;
  readonly PUBLISH_TOKEN: string;
}

export class Hub extends BrokerObject<Env> {
  override readonly options = { retention: { age: 3_600_000 }, duplicateIds: "replace" } as const;

  /** A method of the object's own, which a Worker can call. */
  async greet(name: string): Promise<string> {
    await this.ctx.storage.put("greeted", name);
    const { id } = await this.broadcast(`${name}, whose token is ${this.env.PUBLISH_TOKEN.length} long`);
    return id;
  }
}

export class Rooms extends brokerObject({ heartbeat: 5_000 }) {}

/** An object with types of its events. */
export class Typed extends BrokerObject<Env, { price: { ada: number }; state: string }> {
  async announce(ada: number): Promise<void> {
    await this.broadcast({ event: "price", data: { ada } });
    // @ts-expect-error: there is no such event
    await this.broadcast({ event: "prices", data: { ada } });
  }
}

export async function typed({ TYPED }: Env): Promise<number> {
  const stub = TYPED.getByName("fanwire");
  await stub.announce(1);
  await stub.broadcast({ event: "state", data: "up" });
  // @ts-expect-error: the data is another one's
  await stub.broadcast({ event: "state", data: 1 });
  const broker = hub<EventsOf<Typed>>(TYPED);
  await broker.broadcastTo("me", { event: "price", data: { ada: 1 } });
  // @ts-expect-error: there is no such event
  await broker.broadcastTo("me", { event: "prices", data: { ada: 1 } });
  const [first] = (await broker.history({ limit: 1 })).events;
  return first?.event === "price" ? first.value.ada : 0;
}

/** A broker with its own options, in an object with its own methods. */
export class Own extends BrokerObject {
  readonly broker = createBroker({ engine: durableEngine(this.ctx.storage, { idempotencyWindow: 0 }) });
}

export const whole = worker(({ PUBLISH_TOKEN }: Env) => ({
  binding: "HUB",
  publishToken: PUBLISH_TOKEN,
  authorize: ({ context }) => (context as Env).PUBLISH_TOKEN !== "",
}));

export default {
  async fetch(request, env) {
    const rooms = hub(env.ROOMS, { name: ({ url }) => new URL(url).hostname, mode: "direct" });
    const { id, clients } = await env.HUB.getByName("fanwire").broadcast({ data: { a: 1 } }, { channels: "news" });
    const greeted: string = await env.HUB.getByName("fanwire").greet(`${id} ${clients}`);
    const { report } = await hub(env.HUB).broadcast(greeted, { report: true });
    const { sent } = await report;
    if (sent === 0) await env.ROOMS.getByName("x").disconnect("me", { blockFor: 1_000 });
    return rooms.fetch(request, env);
  },
} satisfies ExportedHandler<Env>;
