// A Worker as a user writes it, against Cloudflare's own types: what does not fit them fails `npm run types`.
import { createBroker } from "fanwire";
import { BrokerObject, brokerObject, durableEngine, hub, worker } from "fanwire/workers";

interface Env {
  readonly HUB: DurableObjectNamespace<Hub>;
  readonly ROOMS: DurableObjectNamespace<Rooms>;
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
