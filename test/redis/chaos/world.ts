import { setTimeout as sleep } from "node:timers/promises";
import { Epochs } from "./epochs.ts";
import { Forwarder } from "./forwarder.ts";
import { Instance, type Runtime } from "./instance.ts";
import type { Family, Plan, Size } from "./plan.ts";
import { Publisher } from "./publisher.ts";
import { Random } from "./random.ts";
import { inboxName, Roamer } from "./roamer.ts";
import { Store } from "./store.ts";

/** Each has a client of Redis of its own. */
const RUNTIMES: readonly Runtime[] = ["bun", "deno", "node"];
const CHANNELS: readonly string[] = Array.from({ length: 30 }, (_, index) => `channel-${index}`);

/** Instances, clients, a publisher and the store, and all that can happen to them. */
export class World {
  readonly epochs: Epochs = new Epochs();
  readonly publisher: Publisher;
  readonly clients: readonly Roamer[];
  readonly instances: Instance[] = [];
  readonly #random: Random;
  /** Between each instance and the store: for commands, and for the feed. */
  readonly #commands: Forwarder[] = [];
  readonly #feeds: Forwarder[] = [];
  #store: Store | undefined;
  #replica: { readonly store: Store; readonly link: Forwarder } | undefined;

  constructor(seed: number, size: Size) {
    this.#random = new Random(seed ^ 0x5eed);
    const instances = (): readonly string[] => this.instances.filter(({ isUp }) => isUp).map(({ url }) => url);
    const { epochs } = this;
    this.publisher = new Publisher(instances, this.#random.fork(), epochs);
    const around = { instances, epochs, published: () => this.publisher.published.length };
    this.clients = Array.from({ length: size.clients }, (_, index) => {
      const random = this.#random.fork();
      return new Roamer(`client-${index}`, random.sample(CHANNELS, random.integer(1, 5)), random, around);
    });
  }

  /** Starts everything, and waits until each client is ready. With `memory` there is one instance, and no store. */
  async open(engine: "redis" | "memory", withReplica: boolean): Promise<void> {
    if (engine === "memory") {
      this.instances.push(await Instance.start("bun", { ENGINE: engine }));
    } else {
      const store = await Store.start();
      this.#store = store;
      if (withReplica) this.#replica = await replicaOf(store);
      const prefix = `chaos-${store.port}`;
      for (const _ of RUNTIMES) {
        this.#commands.push(await Forwarder.to(store.port));
        this.#feeds.push(await Forwarder.to(store.port));
      }
      const starting = RUNTIMES.map((runtime, index) =>
        Instance.start(runtime, {
          REDIS_URL: `redis://127.0.0.1:${this.#commands[index]?.port}`,
          REDIS_FEED_URL: `redis://127.0.0.1:${this.#feeds[index]?.port}`,
          PREFIX: prefix,
        }),
      );
      this.instances.push(...(await Promise.all(starting)));
    }
    for (const client of this.clients) client.connect();
    while (!this.clients.every(({ isReady }) => isReady)) await sleep(10);
  }

  /** Lives through a plan; resolves when the last of it is done and everything is there again. */
  async live({ store, instances, clients }: Plan, size: Size): Promise<void> {
    const start = Date.now();
    const due = (at: number): Promise<void> => sleep(Math.max(0, start + at - Date.now()));
    const lane = async <Fault extends { readonly at: number }>(
      faults: readonly Fault[],
      strike: (fault: Fault) => Promise<void>,
    ): Promise<void> => {
      for (const fault of faults) {
        await due(fault.at);
        await strike(fault);
      }
    };
    await Promise.all([
      this.#publish(due, size.ms),
      lane(store, (fault) => this.#strikeStore(fault)),
      ...this.instances.map((instance, index) =>
        lane(instances[index] ?? [], async (fault) => {
          if (fault.do === "swallow") return this.#feeds[index]?.swallow();
          if (fault.do === "lose") return this.#feeds[index]?.lose(fault.pieces);
          await instance.kill();
          await sleep(fault.downMs);
          await instance.start();
        }),
      ),
      // Clients do not wait for one another.
      ...clients.map((fault) => lane([fault], (each) => this.#strikeClients(each))),
    ]);
    for (const feed of this.#feeds) feed.lose(0);
  }

  /** Publishes an event to each channel and each inbox, and gives the numbers of those that each client has to get. */
  async finish(): Promise<ReadonlyMap<Roamer, readonly number[]>> {
    const { clients, publisher } = this;
    const names = ["fanwire-common", ...CHANNELS, ...clients.map(({ name }) => inboxName(name))];
    const numbers = new Map<string, number>();
    const next = async (): Promise<void> => {
      for (let name = names.pop(); name !== undefined; name = names.pop())
        numbers.set(name, await publisher.publish([name], true));
    };
    await Promise.all(Array.from({ length: 20 }, next));
    return new Map(clients.map((client) => [client, client.channels.map((name) => numbers.get(name) as number)]));
  }

  async close(): Promise<void> {
    this.publisher.close();
    for (const client of this.clients) client.leave();
    await Promise.all(this.instances.map((instance) => instance.kill()));
    for (const forwarder of [...this.#commands, ...this.#feeds]) forwarder.close();
    this.#replica?.link.close();
    await Promise.all([this.#store?.close(), this.#replica?.store.close()]);
  }

  async #publish(due: (at: number) => Promise<void>, ms: number): Promise<void> {
    const random = this.#random.fork();
    for (let at = 0; at < ms; at += 50) {
      await due(at);
      for (let left = random.integer(0, 16); left > 0; left--) {
        const channels = this.#targets(random);
        // A store that is away must not be met by all that was kept from it at once.
        if (this.publisher.open < 150) void this.publisher.publish(channels);
      }
    }
  }

  #targets(random: Random): readonly string[] {
    const kind = random.next();
    if (kind < 0.05) return ["fanwire-common"];
    if (kind < 0.25) return [inboxName(random.pick(this.clients).name)];
    return random.sample(CHANNELS, random.integer(1, 3));
  }

  async #strikeClients(fault: Plan["clients"][number]): Promise<void> {
    const struck = fault.clients.flatMap((index) => this.clients[index] ?? []);
    if (fault.do !== "stall") {
      for (const client of struck) client.cut(fault.do);
      return;
    }
    for (const client of struck) client.stall();
    await sleep(fault.ms);
    for (const client of struck) client.resume();
  }

  async #strikeStore(fault: Plan["store"][number]): Promise<void> {
    const store = this.#store as Store;
    switch (fault.do) {
      case "sleep":
        await store.cli("DEBUG", "SLEEP", String(fault.ms / 1000));
        break;
      case "pause":
        await store.pause();
        await sleep(fault.ms);
        await store.resume();
        break;
      case "disconnect":
        await store.cli("CLIENT", "KILL", "TYPE", fault.kind);
        break;
      case "fill":
        await store.cli("CONFIG", "SET", "maxmemory", "1mb");
        await sleep(fault.ms);
        await store.cli("CONFIG", "SET", "maxmemory", "0");
        break;
      case "empty":
        await store.kill();
        store.forget();
        await sleep(fault.downMs);
        await store.revive();
        break;
      case "rewind":
        await store.cli("SAVE");
        await sleep(fault.afterMs);
        await store.kill();
        await sleep(fault.downMs);
        await store.revive();
        break;
      case "promote":
        await this.#promote(fault.lagMs);
    }
  }

  async #promote(lagMs: number): Promise<void> {
    const replica = this.#replica;
    const old = this.#store;
    if (!replica || !old) throw new Error("promoting: there is no replica");
    replica.link.swallow();
    await sleep(lagMs);
    await old.close();
    await replica.store.cli("REPLICAOF", "NO", "ONE");
    replica.link.close();
    this.#store = replica.store;
    this.#replica = undefined;
    for (const forwarder of [...this.#commands, ...this.#feeds]) {
      forwarder.target = replica.store.port;
      forwarder.cut();
    }
  }
}

/** A replica that has everything, over a link of its own. */
async function replicaOf(store: Store): Promise<{ readonly store: Store; readonly link: Forwarder }> {
  const link = await Forwarder.to(store.port);
  const replica = await Store.start();
  await replica.cli("REPLICAOF", "127.0.0.1", String(link.port));
  while (!String(await replica.cli("INFO", "replication")).includes("master_link_status:up")) await sleep(50);
  return { store: replica, link };
}

/** Whether a plan needs one. */
export const needsReplica = (plan: Plan, family: Family): boolean =>
  family === "any" && plan.store.some((fault) => fault.do === "promote");
