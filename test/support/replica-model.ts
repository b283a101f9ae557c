import fc from "fast-check";
import type { Broker } from "../../src/index.ts";
import { replicaEngine } from "../../src/replica/replica.ts";
import { Clock } from "./clock.ts";
import { seqOf } from "./connection.ts";
import { inboxName, LineageReader } from "./lineage.ts";
import { MemoryStore } from "./memory-remote.ts";
import { type Faults, type World, worldArbitrary } from "./model.ts";
import { judge, judgeAlarms, type Told } from "./oracle.ts";
import type { Scene } from "./scene.ts";

/** What a random world of two processes may have happen to it. */
export interface Troubles {
  /** Single messages vanish without a sign, so that later ones of other channels come before them. */
  readonly swallows?: boolean;
  readonly anew?: boolean;
  /** What one process holds of the log is hardly anything. */
  readonly small?: boolean;
  /** Nothing happens to the connections. */
  readonly calm?: boolean;
  /** The store keeps everything. */
  readonly keeps?: boolean;
}

type Trouble =
  | { readonly do: "feed" | "commands"; readonly is: boolean }
  | { readonly do: "swallow"; readonly messages: number }
  | { readonly do: "silence" | "lose-answer" | "anew" | "lose" }
  | { readonly do: "delay"; readonly requests: number; readonly answers: number; readonly feed: number }
  | { readonly do: "pass"; readonly ms: number };

interface Event {
  /** Before which step. */
  readonly at: number;
  readonly process: 0 | 1;
  readonly trouble: Trouble;
}

export interface ReplicaWorld {
  readonly world: World;
  readonly page: number;
  readonly events: readonly Event[];
}

export function replicaWorldArbitrary({ swallows, anew, small, calm, keeps }: Troubles): fc.Arbitrary<ReplicaWorld> {
  const world = worldArbitrary(small ? { overruns: true } : {});
  // Who leaves before it is found that a message vanished, with the id of a later one, cannot be told.
  const isFor = ({ do: what }: World["steps"][number]): boolean =>
    !swallows || (what !== "leave" && what !== "glimpse");
  const turns = fc.nat({ max: 4 });
  const pass = fc.record({ do: fc.constant("pass" as const), ms: fc.constantFrom(60, 400, 3_500, 11_000) });
  const delay = fc.record({ do: fc.constant("delay" as const), requests: turns, answers: turns, feed: turns });
  const switched = fc.record({ do: fc.constantFrom("feed" as const, "commands" as const), is: fc.boolean() });
  const kinds: { weight: number; arbitrary: fc.Arbitrary<Trouble> }[] = [
    { weight: 2, arbitrary: pass },
    { weight: 2, arbitrary: delay },
  ];
  if (!calm) kinds.push({ weight: 5, arbitrary: switched });
  if (!calm) kinds.push({ weight: 1, arbitrary: fc.record({ do: fc.constantFrom("silence", "lose-answer") }) });
  const messages = fc.integer({ min: 1, max: 3 });
  if (swallows) kinds.push({ weight: 4, arbitrary: fc.record({ do: fc.constant("swallow" as const), messages }) });
  if (anew) kinds.push({ weight: 1, arbitrary: fc.record({ do: fc.constantFrom("anew", "lose") }) });
  const process = fc.constantFrom(0 as const, 1 as const);
  return fc.record({
    world: world.map(({ events, steps, readers, ...rest }) => ({
      ...rest,
      // Nor can a listener that waits for nothing just then.
      readers: readers.map((reader) => (swallows ? { ...reader, kind: "client" as const } : reader)),
      events: keeps ? Infinity : events,
      steps: steps.filter(isFor),
    })),
    page: fc.integer({ min: 1, max: 4 }),
    events: fc.array(fc.record({ at: fc.nat({ max: 40 }), process, trouble: fc.oneof(...kinds) }), { maxLength: 25 }),
  });
}

const COST = 256 + 40;
/** Positions of an epoch, at the most. */
const EPOCH = 1_000_000;
const NAMES = ["a", "b", "c"];
const CODES = ["engine-down", "publish-outcome-unknown", "unknown-client"];

/** A reader that does one thing at a time, however long that takes. */
class Visitor {
  readonly reader: LineageReader;
  busy: Promise<void> | undefined;

  constructor(reader: LineageReader) {
    this.reader = reader;
  }

  /** Does it, if it has nothing else to do. What fails is as if it was not tried. */
  try(what: (reader: LineageReader) => Promise<void>): void {
    this.busy ??= what(this.reader)
      .catch(() => undefined)
      .finally(() => {
        this.busy = undefined;
      });
  }

  connect(): void {
    this.try(async (reader) => {
      if (!reader.isConnected) await reader.drop();
      await reader.connect();
    });
  }
}

/** Lives through a world. */
export async function runReplicaModel(stage: Scene, plan: ReplicaWorld, isStrict: boolean): Promise<Faults> {
  const clock = new Clock(() => store.turn());
  const store = new MemoryStore({ retention: plan.world.events, page: plan.page });
  let faults: Faults | undefined;
  await clock.run(async () => {
    faults = await new Life(stage, plan, store, clock).live(isStrict);
  });
  return faults as Faults;
}

class Life {
  readonly #plan: ReplicaWorld;
  readonly #store: MemoryStore;
  readonly #clock: Clock;
  readonly #brokers: readonly [Broker, Broker];
  readonly #visitors: readonly Visitor[];
  readonly #losses: string[] = [];
  readonly #publishing: { readonly data: string; readonly process: number; readonly outcome: Promise<string> }[] = [];

  constructor(stage: Scene, plan: ReplicaWorld, store: MemoryStore, clock: Clock) {
    this.#plan = plan;
    this.#store = store;
    this.#clock = clock;
    const { logEvents, unit, readers } = plan.world;
    const logBytes = logEvents === Infinity ? 32 * 1024 * 1024 : logEvents * (COST + unit);
    const make = (): Broker =>
      stage.broker({
        engine: replicaEngine(store, { logBytes, retention: { age: Infinity } }),
        timeout: Infinity,
        heartbeat: 30_000,
        inboxLinger: 600_000,
      });
    this.#brokers = [make(), make()];
    // It has no claim before it is told where it is.
    const counts = (): { called: number; done: number } => ({ called: Infinity, done: 0 });
    this.#visitors = readers.map(({ kind, id, channels, beginning }) => {
      const reader =
        kind === "client"
          ? LineageReader.client(this.#brokers[0], id, channels, beginning, counts)
          : LineageReader.listener(this.#brokers[0], channels, beginning, counts);
      reader.place = (name) => `x-${this.#place(name)}`;
      return new Visitor(reader);
    });
  }

  #place(id: string): number {
    const end = id.lastIndexOf("-");
    return (this.#store.epochs.indexOf(id.slice(0, end)) + 1) * EPOCH + Number(id.slice(end + 1));
  }

  get #told(): Told[] {
    return this.#store.appended.map(({ epoch, seq, keys, text }) => ({
      seq: this.#place(`${epoch}-${seq}`),
      channels: keys.map((key) =>
        key === "" ? "fanwire-common" : key[0] === "@" ? inboxName(key.slice(1)) : key.slice(1),
      ),
      data: /^data: (.*)$/m.exec(text)?.[1] ?? "",
      cost: 0,
    }));
  }

  #publish(process: 0 | 1, call: (broker: Broker, data: string) => Promise<{ id: string }>, padding = 0): void {
    const data = `${this.#publishing.length} ${"x".repeat(padding)}`;
    const outcome = call(this.#brokers[process], data).then(
      ({ id }) => id,
      (error: { code?: string }) => error.code ?? String(error),
    );
    this.#publishing.push({ data, process, outcome });
  }

  #broadcast(process: 0 | 1, channel: readonly string[], padding = 0): void {
    this.#publish(process, (broker, data) => broker.broadcast(data, channel.length > 0 ? { channel } : {}), padding);
  }

  async live(isStrict: boolean): Promise<Faults> {
    const { steps } = this.#plan.world;
    // Both are used, so that both have a session.
    for (const broker of this.#brokers) await this.#clock.until(broker.broadcast("the first"));
    for (const visitor of this.#visitors) visitor.connect();
    await this.#clock.pass(100);
    this.#claim();
    for (const [index, step] of steps.entries()) {
      for (const { at, process, trouble } of this.#plan.events) if (at === index) await this.#befall(process, trouble);
      await this.#step(step);
      await this.#clock.turns(1);
    }
    await this.#settle();
    await this.#end();
    const result = await this.#judge(isStrict);
    for (const { reader } of this.#visitors) await reader.drop();
    for (const broker of this.#brokers) await this.#clock.until(broker.close());
    if (this.#clock.pending.length > 0) this.#losses.push(`timers are left: ${this.#clock.pending}`);
    return result;
  }

  /** Who has connected without having been told where it is has a claim from here on. */
  #claim(): void {
    const last = this.#told.at(-1)?.seq ?? 0;
    for (const { reader } of this.#visitors) if (reader.start === Infinity) reader.start = last;
  }

  async #befall(process: 0 | 1, trouble: Trouble): Promise<void> {
    const session = this.#store.sessions[process];
    if (!session) throw new Error("the broker has no session");
    switch (trouble.do) {
      case "feed":
        session.feed(trouble.is);
        break;
      case "commands":
        session.commands(trouble.is);
        break;
      case "swallow":
        if (session.swallows !== Infinity) session.swallows = trouble.messages;
        break;
      case "silence":
        session.swallows = Infinity;
        break;
      case "lose-answer":
        session.losesAnswer = true;
        break;
      case "anew":
        this.#store.beginAnew();
        break;
      case "lose":
        this.#store.lose();
        break;
      case "delay":
        session.delay(trouble);
        break;
      default:
        await this.#clock.pass(trouble.ms, 1);
    }
  }

  async #step(step: World["steps"][number]): Promise<void> {
    const index = "reader" in step ? step.reader : 0;
    const visitor = this.#visitors[index] as Visitor;
    const { kind, id } = this.#plan.world.readers[index] ?? { kind: "listener", id: "" };
    const { unit } = this.#plan.world;
    switch (step.do) {
      case "publish":
        for (let time = 0; time < step.times; time++)
          this.#broadcast((this.#publishing.length % 2) as 0 | 1, step.channels, step.size * unit);
        break;
      case "send":
        if (kind === "listener") break;
        for (let time = 0; time < step.times; time++)
          this.#publish((this.#publishing.length % 2) as 0 | 1, (broker, data) => broker.broadcastTo(id, data));
        break;
      case "read":
        if (!visitor.reader.isConnected) visitor.connect();
        visitor.reader.want(step.chunks);
        break;
      case "look":
        visitor.reader.look(step.events);
        break;
      case "glimpse":
        visitor.try(async (reader) => {
          if (!reader.isConnected) await reader.drop();
          await reader.connect();
          reader.want(step.chunks);
          await this.#clock.turns(2);
          reader.look(step.events);
          await reader.drop();
        });
        break;
      case "leave":
        visitor.try(async (reader) => {
          await reader.drop();
          if (step.other) reader.broker = reader.broker === this.#brokers[0] ? this.#brokers[1] : this.#brokers[0];
        });
        break;
      default:
        await this.#clock.turns(2);
    }
  }

  /** All is well again, and all are connected. */
  async #settle(): Promise<void> {
    for (const session of this.#store.sessions) {
      session.delay();
      session.commands(true);
      session.feed(true);
      if (session.swallows < Infinity) session.swallows = 0;
    }
    await this.#clock.pass(15_000, 1);
    for (const visitor of this.#visitors) {
      // So that who was sent away has read that.
      visitor.reader.want(2);
      await this.#clock.turns();
      for (let attempt = 0; attempt < 5 && !visitor.reader.isConnected; attempt++) {
        visitor.connect();
        await this.#clock.pass(500, 1);
      }
      if (!visitor.reader.isConnected) this.#losses.push("a reader cannot connect");
    }
    this.#claim();
  }

  /** They read until they have what is published last. */
  async #end(): Promise<void> {
    for (const channel of [[], NAMES]) this.#broadcast(0, channel);
    await this.#clock.pass(200, 1);
    const published = this.#told;
    for (const [index, { reader }] of this.#visitors.entries()) {
      const last = published.findLast(({ channels }) => channels.some((name) => reader.channels.includes(name)));
      const isThere = (): boolean => reader.seen.some(({ id }) => seqOf(id) >= (last?.seq ?? 0));
      for (let rounds = 0, more = 3; rounds < 400 && more > 0; rounds++) {
        reader.want(1);
        await this.#clock.pass(rounds % 20 === 19 ? 300 : 1, 1);
        reader.look(Infinity);
        if (isThere()) more--;
        // It may have been sent away, with a word.
        else if (!reader.isConnected) this.#visitors[index]?.connect();
      }
      if (!isThere()) this.#losses.push(`reader ${index}: is stuck before the last event`);
    }
  }

  async #judge(isStrict: boolean): Promise<Faults> {
    const published = this.#told;
    await this.#judgePublishing(published);
    const alarms: string[] = [];
    const base = this.#store.epochs.length * EPOCH;
    const ofLast = published.filter(({ seq }) => seq > base);
    for (const [index, { reader }] of this.#visitors.entries()) {
      const name = (fault: string): string => `reader ${index}: ${fault}`;
      const bounds = { events: this.#plan.world.events, logBytes: Infinity, forgets: true };
      this.#losses.push(...judge(published, reader, bounds).map(name));
      if (!isStrict) continue;
      const { channels, start, floor } = reader;
      const seen = reader.seen.filter(({ id }) => seqOf(id) >= base);
      const lineage = { channels, start, floor, seen };
      this.#losses.push(...judge(ofLast, lineage, { ...bounds, forgets: false }).map(name));
      alarms.push(...judgeAlarms(published, reader).map(name));
    }
    return { losses: this.#losses, alarms };
  }

  /** What was said to be published is there, once, in the order of the calls; what was refused is not. */
  async #judgePublishing(published: readonly Told[]): Promise<void> {
    const last = [0, 0];
    for (const { data, process, outcome } of this.#publishing) {
      const what = await this.#clock.until(outcome);
      const there = published.filter((each) => each.data === data.trimEnd() || each.data === data);
      const { seq } = there[0] ?? { seq: undefined };
      if (there.length > 1) this.#losses.push(`${data} was appended ${there.length} times`);
      if (seq === undefined ? !CODES.includes(what) : !["publish-outcome-unknown", this.#idOf(seq)].includes(what))
        this.#losses.push(`${data} is at ${seq}, and its publisher was told ${what}`);
      if (seq !== undefined && seq < (last[process] ?? 0)) this.#losses.push(`${data} was appended too late`);
      last[process] = seq ?? last[process] ?? 0;
    }
  }

  #idOf(seq: number): string {
    return `${this.#store.epochs[Math.floor(seq / EPOCH) - 1]}-${seq % EPOCH}`;
  }
}
