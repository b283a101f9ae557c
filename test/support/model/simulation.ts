import { inject } from "vitest";
import { seqOf } from "../clients/connection.ts";
import { Clock } from "../clock.ts";
import { judge, judgeAlarms } from "../oracle/oracle.ts";
import type { Scene } from "../test-broker.ts";
import type { Happened } from "./account.ts";
import { judgeCalls } from "./call-oracle.ts";
import type { History, Kinds, Step } from "./history.ts";
import { Instance } from "./instance.ts";
import { Publisher } from "./publisher.ts";
import { Reader } from "./reader.ts";
import { Visit } from "./visit.ts";
import { judgeInstance, judgeVisits } from "./visit-oracle.ts";
import { type World, worldOf } from "./world.ts";

/** Milliseconds until all is well again: after the worst that may happen to a store, when the last answer of a late engine has come, and else. */
const RECOVERY = { store: 15_000, late: 3_500, else: 1_500 };
/** Looks at what has come after which a reader is taken to be stuck. */
const PATIENCE = 200;

/** What was wrong with a history that was lived through, and what happened in it. */
export interface Lived {
  readonly faults: readonly string[];
  readonly happened: Happened;
}

/** Lives through a history, by a clock of its own. */
export async function simulate(stage: Scene, kinds: Kinds, history: History): Promise<Lived> {
  const clock = new Clock(undefined, true);
  const random = Math.random;
  let lived: Lived | undefined;
  Math.random = seeded(history.random);
  try {
    await clock.run(async () => {
      lived = await new Simulation(stage, kinds, history, clock).live();
    });
  } finally {
    Math.random = random;
  }
  return lived as Lived;
}

/** Mulberry32, so that a history is the same each time. */
function seeded(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

class Simulation {
  readonly #kinds: Kinds;
  readonly #history: History;
  readonly #clock: Clock;
  readonly #world: World;
  /** All that there ever were; those that are open are in `#open`. */
  readonly #instances: Instance[] = [];
  readonly #open: [Instance, Instance];
  readonly #readers: readonly Reader[];
  readonly #publisher: Publisher;
  readonly #faults: string[] = [];

  constructor(stage: Scene, kinds: Kinds, history: History, clock: Clock) {
    this.#kinds = kinds;
    this.#history = history;
    this.#clock = clock;
    this.#world = worldOf(stage, kinds, history.setting, clock);
    this.#open = [this.#start(0), this.#start(1)];
    const world = this.#world;
    this.#publisher = new Publisher((process) => this.#open[process], world.asked, clock);
    const around = {
      now: () => clock.time,
      place: (id: string) => world.place(id),
      head: () => world.head,
      isHere: !kinds.store,
      visit: (reader: Reader, asked: string | undefined) => this.#visit(reader, asked),
      broker: (reader: Reader) => this.#open[reader.process].broker,
    };
    this.#readers = history.readers.map((plan) => new Reader(plan, around));
  }

  #start(process: 0 | 1): Instance {
    const world = this.#world;
    const head = (): number => world.head;
    const instance = new Instance(process, world.engine(process), this.#history.setting, head, this.#clock);
    this.#instances.push(instance);
    return instance;
  }

  #visit(reader: Reader, asked: string | undefined): Visit {
    const instance = this.#open[reader.process];
    const visit = new Visit(reader.plan, instance, asked, this.#clock);
    instance.visits.push(visit);
    void visit.connect().catch((error) => this.#faults.push(`connecting: ${error}`));
    return visit;
  }

  async live(): Promise<Lived> {
    // Both are used, so that both have a session.
    for (const process of [0, 1] as const) this.#announce(process, []);
    await this.#clock.wait(100);
    for (const step of this.#history.steps) await this.#do(step);
    await this.#recover();
    await this.#end();
    await this.#close();
    this.#judge();
    const world = this.#world;
    const happened = {
      published: world.told(),
      calls: this.#publisher.calls,
      instances: this.#instances,
      readers: this.#readers,
      place: (id: string) => world.place(id),
    };
    return { faults: this.#faults, happened };
  }

  async #do(step: Step): Promise<void> {
    switch (step.do) {
      case "publish":
        for (let time = 0; time < step.times; time++) this.#publisher.publish(step);
        break;
      case "again":
        this.#publisher.again(step);
        break;
      case "send": {
        const { kind, id } = this.#reader(step.reader).plan;
        if (kind === "listener") break;
        for (let time = 0; time < step.times; time++) this.#publisher.send(step.process, id, step.report);
        break;
      }
      case "read":
        this.#reader(step.reader).read(step.bytes);
        break;
      case "stall": {
        const reader = this.#reader(step.reader);
        reader.read(0);
        // The first of them fills what is on its way to most readers.
        for (const size of [300, 0]) {
          await this.#clock.turns(2);
          this.#publisher.publish({ process: step.process, channels: [], size, report: true, key: false });
        }
        await this.#clock.wait(step.ms);
        reader.read(Infinity);
        break;
      }
      case "glimpse": {
        const reader = this.#reader(step.reader);
        reader.read(1);
        await this.#clock.turns(2);
        reader.read(step.bytes);
        reader.drop(step.how);
        break;
      }
      case "drop": {
        const reader = this.#reader(step.reader);
        reader.drop(step.how);
        if (step.moves) reader.process = reader.process === 0 ? 1 : 0;
        break;
      }
      case "disconnect":
        this.#open[step.process].disconnect(this.#reader(step.reader).plan.id, step.for);
        break;
      case "restart":
        this.#open[step.process].close(step.over);
        // Somebody has not heard of it.
        this.#announce(step.process, []);
        this.#open[step.process] = this.#start(step.process);
        break;
      case "turn":
        await this.#clock.turns(1);
        break;
      case "pass":
        await this.#clock.wait(step.ms);
        break;
      default:
        this.#world.befall(step);
    }
  }

  #reader(index: number): Reader {
    return this.#readers[index] as Reader;
  }

  #announce(process: 0 | 1, channels: readonly string[]): void {
    this.#publisher.publish({ process, channels, size: 0, report: false, key: false });
  }

  /** All is well again, and all are connected. */
  async #recover(): Promise<void> {
    const { store, late } = this.#kinds;
    this.#world.heal();
    for (const { visits } of this.#instances) for (const visit of visits) if (!this.#isRead(visit)) visit.notice();
    await this.#clock.wait(RECOVERY[store ? "store" : late ? "late" : "else"]);
    for (const reader of this.#readers) {
      for (let round = 0; round < PATIENCE && !reader.isThere; round++) await this.#look(reader, round);
      if (!reader.isThere) this.#faults.push(`${reader.plan.id} cannot connect`);
      reader.claim();
    }
  }

  /** Whether a reader reads this one. */
  #isRead(visit: Visit): boolean {
    return this.#readers.some((reader) => reader.isOn(visit));
  }

  async #look(reader: Reader, round: number): Promise<void> {
    reader.connect();
    reader.widen();
    await this.#clock.wait(round % 20 === 19 ? 300 : 1);
    reader.read(Infinity);
  }

  /** They read until they have what is published last. */
  async #end(): Promise<void> {
    for (const channels of [[], ["a", "b", "c"]]) this.#announce(0, channels);
    await this.#clock.wait(200);
    const published = this.#world.told();
    for (const reader of this.#readers) {
      const last = published.findLast(({ channels }) => channels.some((name) => reader.channels.includes(name)));
      // Whoever asked for the earliest after it was published may find nothing kept.
      const hasAll = (): boolean => Math.max(reader.place, reader.start) >= (last?.seq ?? 0);
      // Something may stand behind it at the same position.
      for (let round = 0, more = 3; round < PATIENCE && more > 0; round++) {
        await this.#look(reader, round);
        if (hasAll()) more--;
      }
      if (!hasAll()) this.#faults.push(`${reader.plan.id} is stuck at ${reader.place}, before ${last?.seq}`);
    }
  }

  /** All processes close, and nothing is left of them. */
  async #close(): Promise<void> {
    for (const [process, over] of [0, 300].entries()) this.#open[process as 0 | 1].close(over);
    await this.#clock.wait(1_000);
    for (const reader of this.#readers) reader.drop("cancel");
    await this.#clock.settle();
    const { pending } = this.#clock;
    if (pending.length > 0) this.#faults.push(`timers are left, due in ${pending}`);
    this.#faults.push(...this.#world.leftovers());
  }

  #judge(): void {
    const { setting } = this.#history;
    const { store = false, forgets = false, anew = false, swallows = false, late = false, calm, keeps } = this.#kinds;
    const world = this.#world;
    const published = world.told();
    const isHere = !store && !forgets;
    const facts = {
      setting,
      published,
      place: (id: string) => world.place(id),
      disconnects: this.#instances.flatMap((instance) => instance.disconnects),
      isHere,
      isPlain: !anew && !swallows && !forgets,
      isPrompt: isHere && !late,
      isKept: inject("part") === "durable",
      fails: (store && !calm) || late,
    };
    for (const instance of this.#instances)
      this.#faults.push(...judgeVisits(instance, facts), ...judgeInstance(instance, facts));
    this.#faults.push(...judgeCalls(this.#publisher.calls, facts));
    const { events, bytes, age, logBytes } = setting;
    for (const reader of this.#readers) {
      const bounds = store
        ? { events, logBytes: Infinity, forgets: swallows }
        : { events, bytes, age, logBytes, forgets, isShared: true };
      const { channels, start, floor, since } = reader;
      // What an epoch before the last one had is gone.
      const seen = reader.seen.filter(({ id }) => seqOf(id) >= world.base);
      const ofLast = { channels, start, floor, since, seen };
      const kept = published.filter(({ seq }) => seq > world.base);
      const faults = [
        ...judge(published, reader, { ...bounds, forgets: true }),
        ...judge(kept, ofLast, bounds),
        ...((store ? keeps : !forgets) ? judgeAlarms(published, reader) : []),
      ];
      this.#faults.push(...faults.map((fault) => `${reader.plan.kind} ${reader.plan.id}: ${fault}`));
    }
  }
}
