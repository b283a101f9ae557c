// Everything that runs in a run of chaos, and the faults that happen to it.
import { setTimeout as sleep } from "node:timers/promises";
import { Random } from "../../support/random.ts";
import { Epochs } from "./epochs.ts";
import { Forwarder } from "./forwarder.ts";
import { Instance, type Runtime } from "./instance.ts";
import type { Family, Plan, Size } from "./plan.ts";
import { Publisher } from "./publisher.ts";
import { inboxName, RoamingClient } from "./roaming-client.ts";
import { Store } from "./store.ts";

/** One instance on each runtime, each with a different Redis client. */
const RUNTIMES: readonly Runtime[] = ["bun", "deno", "node"];
const CHANNELS: readonly string[] = Array.from({ length: 30 }, (_, index) => `channel-${index}`);
const PUBLISH_INTERVAL_MS = 50;
/** A store that comes back must not receive everything at once that was held back from it. */
const MAX_OPEN_PUBLICATIONS = 150;

/** A store, instances, a publisher and clients. */
export class Deployment {
  readonly epochs: Epochs = new Epochs();
  readonly publisher: Publisher;
  readonly clients: readonly RoamingClient[];
  readonly instances: Instance[] = [];
  readonly #random: Random;
  /** One forwarder between each instance and the store for commands, and one for the feed. */
  readonly #commands: Forwarder[] = [];
  readonly #feeds: Forwarder[] = [];
  #store: Store | undefined;
  #replica: Replica | undefined;

  constructor(seed: number, size: Size) {
    this.#random = new Random(seed ^ 0x5eed);
    const instances = (): readonly string[] => this.instances.filter(({ isUp }) => isUp).map(({ url }) => url);
    const { epochs } = this;
    this.publisher = new Publisher(instances, this.#random.fork(), epochs);
    const environment = {
      ...{ instances, epochs, channels: CHANNELS },
      publications: () => this.publisher.publications.length,
      acknowledged: () => this.publisher.publications.filter(({ id }) => id).map(({ number }) => number),
    };
    this.clients = Array.from({ length: size.clients }, (_, index) => {
      const random = this.#random.fork();
      return new RoamingClient(`client-${index}`, random.sample(CHANNELS, random.integer(1, 5)), random, environment);
    });
  }

  /** Starts everything, and waits until each client is ready. With `memory` there is one instance, and no store. */
  async open(engine: "redis" | "memory", withReplica: boolean): Promise<void> {
    if (engine === "memory") {
      this.instances.push(await Instance.start("bun", { ENGINE: engine }));
    } else {
      const store = await Store.start();
      this.#store = store;
      if (withReplica) this.#replica = await startReplica(store);
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

  /** Publishes while the faults of a plan happen. Resolves when the last fault is over and everything runs again. */
  async run({ store, instances, clients }: Plan, size: Size): Promise<void> {
    const start = Date.now();
    const due = (at: number): Promise<void> => sleep(Math.max(0, start + at - Date.now()));
    const inOrder = async <Fault extends { readonly at: number }>(
      faults: readonly Fault[],
      cause: (fault: Fault) => Promise<void>,
    ): Promise<void> => {
      for (const fault of faults) {
        await due(fault.at);
        await cause(fault);
      }
    };
    await Promise.all([
      this.#publishUntil(size.ms, due),
      inOrder(store, (fault) => this.#causeStoreFault(fault)),
      ...this.instances.map((instance, index) =>
        inOrder(instances[index] ?? [], async (fault) => {
          if (fault.type === "discard-feed") return this.#feeds[index]?.discard();
          if (fault.type === "lose-messages") return this.#feeds[index]?.loseMessages(fault.chunks);
          await instance.kill();
          await sleep(fault.downMs);
          await instance.start();
        }),
      ),
      // Faults of clients do not wait for each other.
      ...clients.map((fault) => inOrder([fault], (clientFault) => this.#causeClientFault(clientFault))),
    ]);
    for (const feed of this.#feeds) feed.loseMessages(0);
  }

  /** Publishes a last event to each channel and each inbox. Returns the numbers of those that each client must receive. */
  async publishLastEvents(): Promise<ReadonlyMap<RoamingClient, readonly number[]>> {
    const { clients, publisher } = this;
    const names = ["fanwire-common", ...CHANNELS, ...clients.map(({ name }) => inboxName(name))];
    const numbers = new Map<string, number>();
    const publishNext = async (): Promise<void> => {
      for (let name = names.pop(); name !== undefined; name = names.pop())
        numbers.set(name, await publisher.publish([name], "connected"));
    };
    await Promise.all(Array.from({ length: 20 }, publishNext));
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

  async #publishUntil(ms: number, due: (at: number) => Promise<void>): Promise<void> {
    const random = this.#random.fork();
    for (let at = 0; at < ms; at += PUBLISH_INTERVAL_MS) {
      await due(at);
      for (let left = random.integer(0, 16); left > 0; left--) {
        const channels = this.#chooseChannels(random);
        if (this.publisher.openCount < MAX_OPEN_PUBLICATIONS) void this.publisher.publish(channels);
      }
    }
  }

  #chooseChannels(random: Random): readonly string[] {
    const choice = random.next();
    if (choice < 0.05) return ["fanwire-common"];
    if (choice < 0.25) return [inboxName(random.pick(this.clients).name)];
    return random.sample(CHANNELS, random.integer(1, 3));
  }

  async #causeClientFault(fault: Plan["clients"][number]): Promise<void> {
    const clients = fault.clients.flatMap((index) => this.clients[index] ?? []);
    if (fault.type !== "pause") {
      for (const client of clients) client.cut(fault.type);
      return;
    }
    for (const client of clients) client.pause();
    await sleep(fault.ms);
    for (const client of clients) client.resume();
  }

  async #causeStoreFault(fault: Plan["store"][number]): Promise<void> {
    const store = this.#store as Store;
    switch (fault.type) {
      case "sleep":
        await store.command("DEBUG", "SLEEP", String(fault.ms / 1000));
        break;
      case "pause":
        await store.pause();
        await sleep(fault.ms);
        await store.resume();
        break;
      case "disconnect":
        await store.command("CLIENT", "KILL", "TYPE", fault.connections);
        break;
      case "fill":
        await store.command("CONFIG", "SET", "maxmemory", "1mb");
        await sleep(fault.ms);
        await store.command("CONFIG", "SET", "maxmemory", "0");
        break;
      case "empty":
        await store.kill();
        store.deleteSnapshot();
        await sleep(fault.downMs);
        await store.restart();
        break;
      case "rewind":
        await store.command("SAVE");
        await sleep(fault.afterMs);
        await store.kill();
        await sleep(fault.downMs);
        await store.restart();
        break;
      case "promote":
        await this.#promote(fault.lagMs);
    }
  }

  async #promote(lagMs: number): Promise<void> {
    const replica = this.#replica;
    const old = this.#store;
    if (!replica || !old) throw new Error("promote: there is no replica");
    replica.link.discard();
    await sleep(lagMs);
    await old.close();
    await replica.store.command("REPLICAOF", "NO", "ONE");
    replica.link.close();
    this.#store = replica.store;
    this.#replica = undefined;
    for (const forwarder of [...this.#commands, ...this.#feeds]) {
      forwarder.target = replica.store.port;
      forwarder.cut();
    }
  }
}

interface Replica {
  readonly store: Store;
  /** The link to the primary. */
  readonly link: Forwarder;
}

/** Starts a replica, and waits until it has all data. */
async function startReplica(primary: Store): Promise<Replica> {
  const link = await Forwarder.to(primary.port);
  const store = await Store.start();
  await store.command("REPLICAOF", "127.0.0.1", String(link.port));
  while (!String(await store.command("INFO", "replication")).includes("master_link_status:up")) await sleep(50);
  return { store, link };
}

/** Whether a plan promotes a replica. */
export const needsReplica = (plan: Plan, family: Family): boolean =>
  family === "any" && plan.store.some((fault) => fault.type === "promote");
