// Runs one random history: two processes with a common engine, their readers and a publisher, by a clock and over sockets of their own.
// Then all oracles check what happened.
import { inject } from "vitest";
import { seqOf } from "../clients/connection.ts";
import { Clock } from "../clock.ts";
import { findFalseGaps, findFaults, type PublishedEvent } from "../oracle/oracle.ts";
import { Random } from "../random.ts";
import type { TestSetup } from "../test-broker.ts";
import { type Backend, createBackend } from "./backend.ts";
import { ConnectionAttempt } from "./connection-attempt.ts";
import { findConnectionFaults, findInstanceFaults } from "./connection-oracle.ts";
import type { History, HistoryKind, Step } from "./history.ts";
import { Instance } from "./instance.ts";
import { findPublishFaults } from "./publish-oracle.ts";
import { Publisher } from "./publisher.ts";
import { Reader } from "./reader.ts";
import { ephemeralData, findStreamFaults, JOINED } from "./stream-oracle.ts";
import type { Trace } from "./trace.ts";

/** Milliseconds after the last disturbance until everything works again. A late engine has sent its last answer by then. */
const RECOVERY_MS = { sharedLog: 15_000, late: 3_500, other: 1_500 };
/** How often a reader reads before it counts as stuck. */
const MAX_ROUNDS = 200;

export interface SimulationResult {
  readonly faults: readonly string[];
  readonly trace: Trace;
}

/** Runs a history and returns the faults that the oracles find. A history gives the same result each time. */
/** Whether the log is in a file: it appends in the turn after the call, and a listener starts where the file is. */
const isInFile = (): boolean => inject("part").startsWith("sqlite");

export async function simulate(setup: TestSetup, kind: HistoryKind, history: History): Promise<SimulationResult> {
  const clock = new Clock(undefined, true);
  const random = Math.random;
  let result: SimulationResult | undefined;
  const seeded = new Random(history.random);
  Math.random = () => seeded.next();
  try {
    await clock.run(async () => {
      result = await new Simulation(setup, kind, history, clock).run();
    });
  } finally {
    Math.random = random;
  }
  return result as SimulationResult;
}

class Simulation {
  readonly #kind: HistoryKind;
  readonly #history: History;
  readonly #clock: Clock;
  readonly #backend: Backend;
  /** All instances, also the closed ones. */
  readonly #instances: Instance[] = [];
  /** The current instance of each process. */
  readonly #open: [Instance, Instance];
  readonly #readers: readonly Reader[];
  readonly #publisher: Publisher;
  readonly #faults: string[] = [];
  #ephemerals = 0;

  constructor(setup: TestSetup, kind: HistoryKind, history: History, clock: Clock) {
    this.#kind = kind;
    this.#history = history;
    this.#clock = clock;
    this.#backend = createBackend(setup, kind, history.settings, clock);
    this.#open = [this.#start(0), this.#start(1)];
    const backend = this.#backend;
    this.#publisher = new Publisher((process) => this.#open[process], backend.outcomes, clock);
    const environment = {
      now: () => clock.time,
      rankOf: (id: string) => backend.rankOf(id),
      head: () => backend.head,
      isLocal: !kind.sharedLog && !isInFile(),
      connect: (reader: Reader, lastEventId: string | undefined) => this.#connect(reader, lastEventId),
      broker: (reader: Reader) => this.#open[reader.process].broker,
    };
    this.#readers = history.readers.map((plan) => new Reader(plan, environment));
  }

  #start(process: 0 | 1): Instance {
    const backend = this.#backend;
    const head = (): number => backend.head;
    const instance = new Instance(process, backend.engine(process), this.#history.settings, head, this.#clock);
    this.#instances.push(instance);
    return instance;
  }

  #connect(reader: Reader, lastEventId: string | undefined): ConnectionAttempt {
    const instance = this.#open[reader.process];
    const attempt = new ConnectionAttempt(reader.plan, instance, lastEventId, this.#clock);
    instance.attempts.push(attempt);
    void attempt.connect().catch((error) => this.#faults.push(`connecting: ${error}`));
    return attempt;
  }

  async run(): Promise<SimulationResult> {
    // A broker opens its session at its first use.
    for (const process of [0, 1] as const) this.#publishMarker(process, []);
    await this.#clock.advanceAndSettle(100);
    for (const step of this.#history.steps) await this.#runStep(step);
    await this.#recover();
    await this.#readToEnd();
    await this.#close();
    this.#check();
    const backend = this.#backend;
    const trace = {
      published: backend.published(),
      calls: this.#publisher.calls,
      instances: this.#instances,
      readers: this.#readers,
      rankOf: (id: string) => backend.rankOf(id),
    };
    return { faults: this.#faults, trace };
  }

  async #runStep(step: Step): Promise<void> {
    switch (step.do) {
      case "publish":
        for (let time = 0; time < step.times; time++) this.#publisher.publish(step);
        break;
      case "republish":
        this.#publisher.republish(step);
        break;
      case "publish-to": {
        const { kind, id } = this.#reader(step.reader).plan;
        if (kind === "listener") break;
        for (let time = 0; time < step.times; time++) this.#publisher.publishTo(step.process, id, step.report);
        break;
      }
      case "read":
        this.#reader(step.reader).read(step.bytes);
        break;
      case "stall": {
        const reader = this.#reader(step.reader);
        reader.read(0);
        // The first event fills the capacity of most readers.
        for (const size of [300, 0]) {
          await this.#clock.turns(2);
          this.#publisher.publish({ process: step.process, channels: [], size, report: true, key: false });
        }
        await this.#clock.advanceAndSettle(step.ms);
        reader.read(Infinity);
        break;
      }
      case "read-and-drop": {
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
        this.#open[step.process].disconnect(this.#reader(step.reader).plan.id, step.barFor);
        break;
      case "subscribe":
      case "unsubscribe":
        this.#change(step.do, this.#reader(step.reader).plan.id);
        break;
      case "ephemeral":
        this.#backend.settle();
        for (let time = 0; time < step.times; time++) {
          const data = ephemeralData(this.#ephemerals++, this.#backend.head, step.channel);
          const options = { channels: step.channel, ephemeral: true } as const;
          this.#open[step.process].broker.broadcast({ event: "ephemeral", data }, options).catch(() => undefined);
        }
        break;
      case "restart":
        this.#open[step.process].close(step.spreadOver);
        // A publisher that does not know that the broker closes must receive an error.
        this.#publishMarker(step.process, []);
        this.#open[step.process] = this.#start(step.process);
        break;
      case "turn":
        await this.#clock.turns(1);
        break;
      case "pass":
        await this.#clock.advanceAndSettle(step.ms);
        break;
      default:
        this.#backend.disturb(step);
    }
  }

  /** Has the open streams of a client id join or leave a channel, in both processes. */
  #change(kind: "subscribe" | "unsubscribe", id: string): void {
    const backend = this.#backend;
    for (const instance of this.#open) {
      const connected = new Set(instance.broker.clients().map(({ connectionId }) => connectionId));
      const attempts = instance.attempts.filter(
        ({ plan, registered, closed }) =>
          plan.id === id && !closed && connected.has(registered?.info.connectionId ?? ""),
      );
      const current = attempts
        .flatMap(({ memberships }) => memberships.at(-1) ?? [])
        .filter(({ leavingAt }) => leavingAt === Infinity);
      const fail = (error: unknown): void => {
        if ((error as { code?: string }).code === undefined) this.#faults.push(`${kind}: ${error}`);
      };
      if (kind === "unsubscribe") {
        for (const membership of current) membership.leavingAt = backend.head;
        const onLeft = (): void => {
          for (const membership of current) membership.leftAt = backend.head;
        };
        instance.broker.unsubscribe(id, JOINED).then(onLeft, fail);
        continue;
      }
      const joining = attempts.flatMap(({ memberships }) => {
        if (memberships.at(-1)?.leavingAt === Infinity) return [];
        const membership = { calledAt: backend.head, joinedAt: Infinity, leavingAt: Infinity, leftAt: Infinity };
        memberships.push(membership);
        return [membership];
      });
      const onJoined = (): void => {
        for (const membership of joining) membership.joinedAt = backend.head;
      };
      instance.broker.subscribe(id, JOINED).then(onJoined, fail);
    }
  }

  #reader(index: number): Reader {
    return this.#readers[index] as Reader;
  }

  #publishMarker(process: 0 | 1, channels: readonly string[]): void {
    this.#publisher.publish({ process, channels, size: 0, report: false, key: false });
  }

  /** Ends all disturbances, and connects every reader. */
  async #recover(): Promise<void> {
    const { sharedLog, late } = this.#kind;
    this.#backend.restore();
    for (const { attempts } of this.#instances)
      for (const attempt of attempts) if (!this.#readers.some((reader) => reader.isUsing(attempt))) attempt.notice();
    await this.#clock.advanceAndSettle(RECOVERY_MS[sharedLog ? "sharedLog" : late ? "late" : "other"]);
    for (const reader of this.#readers) {
      for (let round = 0; round < MAX_ROUNDS && !reader.isConnected; round++) await this.#readOnce(reader, round);
      if (!reader.isConnected) this.#faults.push(`${reader.plan.id} cannot connect`);
      reader.startAtHead();
    }
  }

  async #readOnce(reader: Reader, round: number): Promise<void> {
    reader.connect();
    reader.removeCapacityLimit();
    await this.#clock.advanceAndSettle(round % 20 === 19 ? 300 : 1);
    reader.read(Infinity);
  }

  /** Publishes two last events, and lets every reader read until it has the last one of its channels. */
  async #readToEnd(): Promise<void> {
    for (const channels of [[], ["a", "b", "c"]]) this.#publishMarker(0, channels);
    await this.#clock.advanceAndSettle(200);
    const published = this.#backend.published();
    for (const reader of this.#readers) {
      const last = published.findLast(({ channels }) => channels.some((name) => reader.channels.includes(name)));
      // A reader that starts with the earliest event after the last one was published may find nothing retained.
      const hasAll = (): boolean => Math.max(reader.rank, reader.start) >= (last?.seq ?? 0);
      // More items may follow with the same position.
      for (let round = 0, more = 3; round < MAX_ROUNDS && more > 0; round++) {
        await this.#readOnce(reader, round);
        if (hasAll()) more--;
      }
      if (!hasAll()) this.#faults.push(`${reader.plan.id} is stuck at ${reader.rank}, before ${last?.seq}`);
    }
  }

  /** Closes both processes, and checks that no timer and no part of the log is left. */
  async #close(): Promise<void> {
    for (const [process, spreadOver] of [0, 300].entries()) this.#open[process as 0 | 1].close(spreadOver);
    await this.#clock.advanceAndSettle(1_000);
    for (const reader of this.#readers) reader.drop("cancel");
    await this.#clock.settle();
    const { pending } = this.#clock;
    if (pending.length > 0) this.#faults.push(`timers are left, due in ${pending} ms`);
    this.#faults.push(...this.#backend.leftovers());
  }

  #check(): void {
    const { settings } = this.#history;
    const { sharedLog = false, dropsChannels = false, newEpochs = false, losesMessages = false } = this.#kind;
    const { late = false, calm } = this.#kind;
    const backend = this.#backend;
    // An engine over a file appends in the turn after the call.
    const isImmediate = !sharedLog && !dropsChannels && !isInFile();
    const facts = {
      settings,
      published: backend.published(),
      rankOf: (id: string) => backend.rankOf(id),
      disconnects: this.#instances.flatMap((instance) => instance.disconnects),
      isImmediate,
      isExact: !newEpochs && !losesMessages && !dropsChannels,
      isSynchronous: isImmediate && !late,
      namesPersist: /^(?:durable|sqlite)/.test(inject("part")),
      mayFail: (sharedLog && !calm) || late,
    };
    for (const instance of this.#instances)
      this.#faults.push(...findConnectionFaults(instance, facts), ...findInstanceFaults(instance, facts));
    this.#faults.push(...findPublishFaults(this.#publisher.calls, facts));
    for (const { attempts } of this.#instances)
      for (const attempt of attempts)
        this.#faults.push(...findStreamFaults(facts.published, attempt).map((fault) => `${attempt.plan.id}: ${fault}`));
    for (const reader of this.#readers)
      this.#faults.push(
        ...this.#checkReader(reader, facts.published).map((fault) => `${reader.plan.kind} ${reader.plan.id}: ${fault}`),
      );
  }

  #checkReader(reader: Reader, published: readonly PublishedEvent[]): string[] {
    const { events, eventsOfB = events, bytes, age, logBytes } = this.#history.settings;
    const { sharedLog, dropsChannels = false, losesMessages = false, keepsAll } = this.#kind;
    const bounds = sharedLog
      ? { events, logBytes: Infinity, dropsChannels: losesMessages }
      : { events, eventsOf: { b: eventsOfB }, bytes, age, logBytes, dropsChannels, isShared: true };
    // A client that is overrun twice before it has left a channel is told of a range in two parts, and one may be empty for some channel.
    const hasJoined = this.#instances.some(({ attempts }) =>
      attempts.some(({ plan, memberships }) => plan === reader.plan && memberships.length > 0),
    );
    // The events of earlier epochs are gone.
    const { baseRank } = this.#backend;
    const { channels, start, floor, historyRequestedAt, newest } = reader;
    const items = reader.items.filter(({ id }) => seqOf(id) >= baseRank);
    const inLastEpoch = { channels, joined: reader.joined, start, floor, historyRequestedAt, newest, items };
    const retained = published.filter(({ seq }) => seq > baseRank);
    return [
      ...findFaults(published, reader, { ...bounds, dropsChannels: true }),
      ...findFaults(retained, inLastEpoch, bounds),
      ...((sharedLog ? keepsAll : !dropsChannels) && !hasJoined ? findFalseGaps(published, reader) : []),
    ];
  }
}
