// Runs chaos on runs: producers, readers and those who ask to stop, in several processes, while Redis and their connections fail.
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { createClient } from "redis";
import type { RunEnd, RunPage, RunStore } from "../../../src/engine/run-store.ts";
import { Random } from "../../support/random.ts";
import { type RedisServer, startRedis } from "../../support/servers/redis.ts";
import { openRuns, type RunProcess } from "../support/run-process.ts";
import { Forwarder } from "./forwarder.ts";
import { RunsOracle, textOf } from "./runs-oracle.ts";

const PROCESSES = 4;
const IDS = 8;
const READERS_PER_ID = 2;
/** The longest time until everything has recovered. */
const RECOVERY_MS = 30_000;
const COMMAND_TIMEOUT_MS = 600;
/** A run with the long lease has a producer that does not die. It is never lost, and its readers learn of everything by their watch alone. */
const SHORT_LEASE_MS = 500;
const LONG_LEASE_MS = 60_000;
const RETAIN_MS = 120_000;
const PAGE_BYTES = 400;

export interface RunsOutcome {
  readonly faults: readonly string[];
  readonly counts: Readonly<Record<string, number>>;
  readonly seconds: number;
}

/** One process: a store whose connections can fail. */
interface Member extends RunProcess {
  readonly commands: Forwarder;
  readonly feed: Forwarder;
}

async function openMember(port: number, index: number): Promise<Member> {
  const [commands, feed] = await Promise.all([Forwarder.to(port), Forwarder.to(port)]);
  const subscriber = (): Redis => {
    const client = new Redis(feed.port, "127.0.0.1", { lazyConnect: true, retryStrategy: () => null });
    client.on("error", () => undefined);
    return client;
  };
  const options = { subscriber, commandTimeout: COMMAND_TIMEOUT_MS };
  if (index % 2 === 0) return { ...openRuns(commands.port, options), commands, feed };
  const client = createClient({ url: `redis://127.0.0.1:${commands.port}`, socket: { reconnectStrategy: 20 } });
  client.on("error", () => undefined);
  const process = openRuns(commands.port, { ...options, client });
  const close = (): void => {
    process.close();
    client.destroy();
  };
  return { ...process, commands, feed, close };
}

class RunsChaos {
  readonly oracle = new RunsOracle();
  readonly #random: Random;
  readonly #server: RedisServer;
  readonly #members: readonly Member[];
  /** No producer begins a run any more, and those that wait for somebody to stop them are stopped. */
  #isEnding = false;
  #areProducersOver = false;
  #isClosed = false;
  #generations = 0;

  constructor(random: Random, server: RedisServer, members: readonly Member[]) {
    this.#random = random;
    this.#server = server;
    this.#members = members;
  }

  async run(seed: number): Promise<void> {
    const ids = Array.from({ length: IDS }, (_, index) => `run ${index}`);
    const producing = Promise.all(ids.map((id, index) => this.#produce(id, index % 2 === 0, this.#random.fork()))).then(
      () => {
        this.#areProducersOver = true;
      },
    );
    const readers = ids.flatMap((id) => Array.from({ length: READERS_PER_ID }, () => new Reader(id)));
    const reading = readers.map((reader) => this.#read(reader, this.#random.fork()));
    const stopping = this.#stop(ids, this.#random.fork());
    await this.#fail(seed, this.#random.fork());
    this.#isEnding = true;
    const isOver = await Promise.race([
      Promise.all([producing, stopping]).then(() => true),
      sleep(RECOVERY_MS, false, { ref: false }),
    ]);
    if (!isOver) this.oracle.faults.push("producers are not over");
    else await this.#judgeLast(ids, readers);
    this.#isClosed = true;
    for (const reader of readers) reader.wake();
    await Promise.all(reading);
  }

  /** Each reader has to arrive at the end of the last run of its id. */
  async #judgeLast(ids: readonly string[], readers: readonly Reader[]): Promise<void> {
    const end = Date.now() + RECOVERY_MS;
    for (const id of ids) {
      const read = (): Promise<RunPage | undefined> => this.#readOnce(this.#members[0] as Member, id, 0);
      let last = await read();
      // A producer may have died just now.
      for (; last && !last.end && Date.now() < end; last = await read()) await sleep(50);
      // After the store was emptied there may be none.
      if (!last) continue;
      const { generation, events } = last;
      if (!last.end) this.oracle.faults.push(`${id}, ${generation}: does not end`);
      for (const reader of readers.filter((each) => each.id === id)) {
        const hasAll = (): boolean => reader.isAtEnd && reader.generation === generation && reader.after === events;
        while (!hasAll() && Date.now() < end) await sleep(20);
        if (!hasAll())
          this.oracle.faults.push(
            `${id}, ${generation}: a reader is stuck at ${reader.generation}-${reader.after} of ${events}`,
          );
      }
    }
  }

  /** Runs one run after another. */
  async #produce(id: string, isLong: boolean, random: Random): Promise<void> {
    while (!this.#isEnding) {
      await this.#produceOne(id, `g${++this.#generations}`, isLong, random);
      await sleep(random.integer(0, 100));
    }
  }

  async #produceOne(id: string, name: string, isLong: boolean, random: Random): Promise<void> {
    const { oracle } = this;
    const leaseMs = isLong ? LONG_LEASE_MS : SHORT_LEASE_MS;
    const { runs } = random.pick(this.#members);
    oracle.add(id, name, leaseMs);
    const start = { generation: name, leaseMs, retainMs: RETAIN_MS, readers: undefined };
    for (;;) {
      const known = oracle.begin(id);
      const isStarted = await this.#try(() => runs.start(id, start));
      if (isStarted !== undefined) oracle.started(name, known, isStarted);
      if (isStarted === false) return;
      if (isStarted) break;
      // Some give up: the run may have begun.
      if (!isLong && random.chance(0.2)) return;
      await sleep(random.integer(5, 50));
    }
    const producer = { isOver: false, isStopping: false };
    const check = async (): Promise<void> => {
      const known = oracle.begin(id);
      const [status] = (await this.#try(() => runs.renew([{ id, generation: name }]))) ?? [];
      if (status) oracle.renewed(name, known, status);
      if (status === "stopping") producer.isStopping = true;
      if (status === "over") producer.isOver = true;
    };
    const watch = runs.watch(id, (isStop) => void (isStop && !producer.isOver && check()));
    const timer = setInterval(() => void check(), SHORT_LEASE_MS / 3);
    await this.#write({ id, name, runs, isMortal: !isLong }, producer, random);
    clearInterval(timer);
    producer.isOver = true;
    watch.stop();
  }

  /** Writes until the run is over, or its producer dies. */
  async #write(
    { id, name, runs, isMortal }: { id: string; name: string; runs: RunStore; isMortal: boolean },
    producer: { isOver: boolean; isStopping: boolean },
    random: Random,
  ): Promise<void> {
    const isEndless = random.chance(0.3);
    const length = random.integer(0, 60);
    let events = 0;
    while (!producer.isOver) {
      if (isMortal && random.chance(0.02)) return this.oracle.count("deaths");
      const isLast = producer.isStopping || (!isEndless && events >= length);
      const texts = Array.from({ length: random.integer(isLast ? 0 : 1, 4) }, (_, index) =>
        textOf(name, events + index + 1),
      );
      const end: RunEnd | undefined = isLast
        ? producer.isStopping
          ? "stopped"
          : random.pick(["ended", "failed"])
        : undefined;
      const total = events + texts.length;
      this.oracle.submit(name, total, end);
      for (;;) {
        const known = this.oracle.begin(id);
        const isAppended = await this.#try(() => runs.append(id, name, { after: events, texts, end }));
        if (isAppended !== undefined) this.oracle.appended(name, known, isAppended, total, end);
        if (isAppended === false || (isAppended && end)) return;
        if (isAppended) break;
        if (isMortal && random.chance(0.05)) return this.oracle.count("deaths");
        await sleep(random.integer(5, 50));
      }
      events = total;
      await sleep(random.integer(0, 12));
    }
  }

  async #read(reader: Reader, random: Random): Promise<void> {
    while (!this.#isClosed) {
      const member = random.pick(this.#members);
      const watch = member.runs.watch(reader.id, () => reader.wake());
      try {
        await watch.ready;
        reader.wake();
        // Sometimes the client comes back somewhere else, after its last event, or begins again.
        for (let steps = random.integer(20, 200); steps > 0 && !this.#isClosed; steps--)
          await reader.step((after) => this.#readOnce(member, reader.id, after));
        if (random.chance(0.2)) reader.begin();
      } catch {
        await sleep(random.integer(5, 50));
      } finally {
        watch.stop();
      }
    }
  }

  async #readOnce({ runs }: Member, id: string, after: number): Promise<RunPage | undefined> {
    for (;;) {
      const known = this.oracle.begin(id);
      const answer = await this.#try(async () => ({ page: await runs.read(id, after, PAGE_BYTES) }));
      if (answer) {
        this.oracle.read(id, after, known, answer.page);
        return answer.page;
      }
      if (this.#isClosed) return undefined;
      await sleep(20);
    }
  }

  async #stop(ids: readonly string[], random: Random): Promise<void> {
    while (!this.#isEnding) {
      await sleep(random.integer(20, 200));
      const { runs } = random.pick(this.#members);
      if (await this.#try(() => runs.requestStop(random.pick(ids)))) this.oracle.count("stops");
    }
    while (!this.#areProducersOver) {
      const { runs } = random.pick(this.#members);
      for (const id of ids) await this.#try(() => runs.requestStop(id));
      await sleep(20);
    }
  }

  /** Returns the answer of a call, or `undefined` if it was refused or its outcome is unknown. */
  async #try<T>(call: () => Promise<T> | T): Promise<T | undefined> {
    try {
      return await call();
    } catch (error) {
      const { code } = error as { code?: string };
      if (code !== "engine-down" && code !== "publish-outcome-unknown") this.oracle.faults.push(String(error));
      this.oracle.count(String(code));
      return undefined;
    }
  }

  async #fail(seed: number, random: Random): Promise<void> {
    for (const fault of random.sample(FAULTS, FAULTS.length)) {
      await sleep(random.integer(50, 300));
      // A feed that is silent without an error is found late, so only some seeds have one.
      if (fault === "discard-feed" && seed % 5 !== 0) continue;
      if (fault === "empty" && seed % 4 !== 0) continue;
      await this.#cause(fault, random);
    }
  }

  async #cause(fault: (typeof FAULTS)[number], random: Random): Promise<void> {
    const server = this.#server;
    const { commands, feed } = random.pick(this.#members);
    switch (fault) {
      case "cut-commands":
        return commands.cut();
      case "cut-feed":
        return feed.cut();
      case "discard-commands":
        // A client does not notice that by itself. The system would, in the end.
        commands.discard();
        await sleep(random.integer(50, 2 * COMMAND_TIMEOUT_MS));
        return commands.cut();
      case "discard-feed":
        return feed.discard();
      case "kill-normal":
        return void (await server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"));
      case "kill-pubsub":
        return void (await server.command("CLIENT", "KILL", "TYPE", "pubsub"));
      case "forget-scripts":
        return void (await server.command("SCRIPT", "FLUSH"));
      case "pause":
        await server.kill("SIGSTOP");
        await sleep(random.integer(50, 900));
        return server.kill("SIGCONT");
      case "fill":
        await server.command("CONFIG", "SET", "maxmemory", "1");
        await sleep(random.integer(50, 400));
        return void (await server.command("CONFIG", "SET", "maxmemory", "0"));
      case "restart":
        return server.restart();
      case "empty":
        return this.oracle.wipe(() => server.command("FLUSHALL"));
    }
  }
}

const FAULTS = [
  ...([
    "cut-commands",
    "cut-commands",
    "cut-feed",
    "cut-feed",
    "discard-commands",
    "discard-feed",
    "kill-normal",
  ] as const),
  ...(["kill-pubsub", "forget-scripts", "pause", "fill", "restart", "empty"] as const),
] as const;

/** A reader, which reads again only when its watch calls it, or when the lease is over. */
class Reader {
  readonly id: string;
  generation: string | undefined;
  after = 0;
  isAtEnd = false;
  #hasChanged = false;
  #wake: () => void = () => undefined;

  constructor(id: string) {
    this.id = id;
  }

  wake(): void {
    this.#hasChanged = true;
    this.#wake();
  }

  /** Begins again at the first event. */
  begin(): void {
    this.generation = undefined;
    this.after = 0;
  }

  async step(read: (after: number) => Promise<RunPage | undefined>): Promise<void> {
    this.#hasChanged = false;
    const page = await read(this.after);
    if (page && page.generation !== this.generation) {
      const isAnother = this.after > 0;
      this.generation = page.generation;
      this.after = 0;
      if (isAnother) return;
    }
    if (page) this.after = page.through;
    this.isAtEnd = page?.end !== undefined && this.after === page.events;
    if (page && this.after < page.events) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, Math.min(page?.leaseMs ?? Infinity, 2 ** 31 - 2) + 1);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
      if (this.#hasChanged) this.#wake();
    });
  }
}

/** Runs a seed, and judges the result. */
export async function runRunsChaos(seed: number): Promise<RunsOutcome> {
  const begin = Date.now();
  const random = new Random(seed);
  const server = await startRedis(["--appendonly", "yes", "--appendfsync", "always"]);
  const members = await Promise.all(Array.from({ length: PROCESSES }, (_, index) => openMember(server.port, index)));
  const chaos = new RunsChaos(random, server, members);
  try {
    await chaos.run(seed);
  } finally {
    for (const member of members) {
      member.close();
      member.commands.close();
      member.feed.close();
    }
    await server.stop();
  }
  return { faults: chaos.oracle.faults, counts: chaos.oracle.counts, seconds: (Date.now() - begin) / 1_000 };
}
