// Plays one random history of runs, by its seed: processes with a common store, producers, readers, and trouble.
import { type Broker, createBroker, type Engine } from "../../../src/index.ts";
import { createRuns, type Runs } from "../../../src/runs/index.ts";
import type { Clock } from "../clock.ts";
import { Random } from "../random.ts";
import type { TestSetup } from "../test-broker.ts";
import { type ReadableProcess, RunReader } from "./run-reader.ts";
import { RunWorld } from "./run-world.ts";
import { RunWriter } from "./run-writer.ts";

const IDS = ["a", "b", "c"];
const PROCESSES = 3;
/** Milliseconds for late answers, and for the pauses of those who ask again. */
const MARGIN_MS = 2_500;
/** Milliseconds after which a reader has everything: two late answers, and a pause before a store that failed is asked again. */
const DELAY_MS = 600;
const CODES_OF_START = new Set(["run-exists", "engine-down", "publish-outcome-unknown", "closed"]);

/** A simulated process. */
class Process implements ReadableProcess {
  readonly index: number;
  readonly broker: Broker;
  readonly runs: Runs;
  readonly died: Promise<void>;
  isDead = false;
  diedAt = Infinity;
  closingAt: number | undefined;
  isClosed = false;
  readonly #onDied: () => void;

  constructor(
    index: number,
    engine: Engine,
    world: RunWorld,
    settings: { lease: number; retain: number },
    timeout: number,
  ) {
    this.index = index;
    this.broker = createBroker({
      engine: { ...engine, open: (listener) => ({ ...engine.open(listener), openRuns: () => world.open(this) }) },
      ...{ timeout, tolerance: 1, heartbeat: 400 },
      onError: ({ stage, error }) => {
        if (stage !== "run") world.faults.push(`process ${index} reports ${stage}: ${error}`);
      },
    });
    this.runs = createRuns(this.broker, settings);
    let onDied: () => void = () => undefined;
    this.died = new Promise((resolve) => {
      onDied = resolve;
    });
    this.#onDied = onDied;
  }

  get isOpen(): boolean {
    return !this.isDead && this.closingAt === undefined;
  }

  die(time: number): void {
    this.isDead = true;
    this.diedAt = time;
    this.#onDied();
  }

  close(time: number): void {
    this.closingAt = time;
    void this.broker.close().then(() => {
      this.isClosed = true;
    });
  }
}

/** What became of a history. */
export interface Played {
  readonly faults: readonly string[];
  /** Everything that has happened at least once, by name. */
  readonly seen: ReadonlySet<string>;
}

/** Plays the history of a seed. */
export async function simulateRuns(setup: TestSetup, clock: Clock, seed: number): Promise<Played> {
  return new Simulation(setup, clock, seed).play();
}

class Simulation {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #world: RunWorld;
  readonly #settings: { readonly lease: number; readonly retain: number };
  readonly #timeout: number;
  readonly #engine: Engine;
  readonly #all: Process[] = [];
  /** Those that run now. */
  readonly #open: Process[] = [];
  readonly #writers: RunWriter[] = [];
  readonly #readers: RunReader[] = [];
  /** Starts whose outcome nobody knows, by process. */
  readonly #unsure = new Set<number>();
  /** Calls that have no answer yet, with the process. */
  readonly #asked = new Map<Promise<unknown>, Process>();

  constructor(setup: TestSetup, clock: Clock, seed: number) {
    this.#clock = clock;
    this.#random = new Random(seed);
    this.#world = new RunWorld(clock, this.#random.fork());
    this.#settings = { lease: this.#random.pick([1_000, 2_000]), retain: this.#random.pick([0, 300, 3_000, 20_000]) };
    this.#timeout = this.#random.pick([800, 5_000]);
    this.#engine = setup.engine();
    for (let index = 0; index < PROCESSES; index++) this.#open.push(this.#begin());
  }

  async play(): Promise<Played> {
    for (let left = this.#random.integer(20, 60); left > 0; left--) {
      this.#step();
      if (this.#random.chance(0.6)) await this.#clock.turns(1);
      else await this.#clock.advanceAndSettle(this.#random.pick([1, 10, 100, 300, 1_000]));
    }
    await this.#end();
    const { faults, seen } = this.#world;
    return { faults, seen };
  }

  #begin(): Process {
    const process = new Process(this.#all.length, this.#engine, this.#world, this.#settings, this.#timeout);
    this.#all.push(process);
    return process;
  }

  #pick(): Process {
    return this.#random.pick(this.#open);
  }

  #step(): void {
    const random = this.#random;
    const writers = this.#writers.filter(({ isOpen }) => isOpen);
    // Also those that are over: what they are refused is checked.
    const writer = random.pick(random.chance(0.9) && writers.length > 0 ? writers : this.#writers);
    const id = random.pick(IDS);
    const dice = random.integer(0, 99);
    if (dice < 14) this.#start(id);
    else if (dice < 40) writer?.write();
    else if (dice < 44) writer?.pipe();
    else if (dice < 50) writer?.close();
    else if (dice < 54) this.#stop(id);
    else if (dice < 56) writer?.stop();
    else if (dice < 62) this.#look(id);
    else if (dice < 90) this.#read(id);
    else if (dice < 94) this.#world.downUntil = this.#clock.time + random.pick([50, 400, 3_000]);
    else if (dice < 95) void this.#world.empty();
    else if (dice < 98) this.#replaceProcess();
  }

  #start(id: string): void {
    const process = this.#pick();
    const { step } = this.#world;
    const { time } = this.#clock;
    this.#ask(process, process.runs.start(id)).then(
      (run) => {
        const { generation } = run as unknown as { readonly generation: string };
        const truth = this.#world.truths.get(generation);
        if (!truth) this.#fault(`a run ${id} has started, and the store has not been asked`);
        else this.#writers.push(new RunWriter(run, truth, this.#world, this.#random.fork()));
      },
      (error: { code: string }) => {
        const states = this.#world.statesSince(id, step);
        // A run that has begun without an answer may be lost, and replaced by another one, before its start is repeated.
        const isReplaced = error.code === "run-exists" && this.#clock.time - time >= this.#settings.lease;
        if (isReplaced || error.code === "publish-outcome-unknown" || error.code === "closed")
          this.#unsure.add(process.index);
        this.#world.seen.add(`start: ${error.code}`);
        if (!CODES_OF_START.has(error.code)) this.#fault(`start() rejects with ${error}`);
        if (error.code === "closed" && process.closingAt === undefined) this.#fault("start(): no broker closes");
        if (error.code === "run-exists" && !states.some(({ state }) => state === "active"))
          this.#fault(`start() of ${id} is refused: ${JSON.stringify(states)}`);
      },
    );
  }

  #stop(id: string): void {
    const process = this.#pick();
    const { step } = this.#world;
    this.#ask(process, process.runs.stop(id)).then(
      (isLive) => {
        const states = this.#world.statesSince(id, step);
        if (!states.some(({ state }) => (state === "active") === isLive))
          this.#fault(`stop() of ${id} says ${isLive}: ${JSON.stringify(states)}`);
      },
      (error: unknown) => this.#checkCode("stop()", error, process),
    );
  }

  #look(id: string): void {
    const process = this.#pick();
    const { step } = this.#world;
    this.#ask(process, process.runs.inspect(id)).then(
      ({ state, events, lastEventId }) => {
        const states = this.#world.statesSince(id, step);
        if (!states.some((known) => known.state === state)) this.#fault(`${id} is ${state}: ${JSON.stringify(states)}`);
        if (events > 0 !== (lastEventId !== undefined) || (lastEventId && !lastEventId.endsWith(`-${events}`)))
          this.#fault(`${id} has ${events} events, the last one ${lastEventId}`);
        const generation = lastEventId?.split("-")[0];
        if (generation !== undefined && !states.some((known) => known.generation === generation))
          this.#fault(`${id} is said to be ${generation}: ${JSON.stringify(states)}`);
      },
      (error: unknown) => this.#checkCode("inspect()", error, process),
    );
  }

  #read(id: string): void {
    const random = this.#random;
    const reader = new RunReader(this.#world, random.fork(), id, () => this.#pick());
    const known = [...this.#world.truths.values()].filter((truth) => truth.id === id && truth.texts.length > 0);
    const truth = random.chance(0.5) && known.length > 0 ? random.pick(known.slice(-2)) : undefined;
    const after = truth && `${truth.generation}-${random.integer(0, truth.texts.length)}`;
    this.#readers.push(reader);
    void (random.chance(0.4) ? reader.iterate(after) : reader.request(after));
  }

  /** Closes a process, or lets it vanish, and begins another one. */
  #replaceProcess(): void {
    const slot = this.#random.integer(0, PROCESSES - 1);
    const process = this.#open[slot] as Process;
    if (this.#random.chance(0.5)) process.close(this.#clock.time);
    else process.die(this.#clock.time);
    this.#open[slot] = this.#begin();
  }

  /** Ends all trouble, and checks that everything comes to its end. */
  async #end(): Promise<void> {
    const world = this.#world;
    const { lease, retain } = this.#settings;
    const clock = this.#clock;
    world.calm();
    await clock.advanceAndSettle(DELAY_MS);
    for (const reader of this.#readers) reader.checkDelay(DELAY_MS);
    await clock.advanceAndSettle(lease + MARGIN_MS);
    for (const reader of this.#readers) reader.checkDelay(DELAY_MS);
    for (const writer of this.#writers) {
      const { run, truth } = writer;
      const isLive = !truth.end && !truth.isGone && this.#all[truth.owner]?.isOpen;
      if (isLive && truth.isStopping && !run.stopped.aborted) this.#fault(`${truth.name} is not told to stop`);
      if (writer.isOpen && !writer.piping) writer.close();
    }
    for (const [id, truth] of world.current)
      if (!this.#all[truth.owner]?.isOpen) await this.#lookNow(id, "lost", truth.generation);
    await clock.advanceAndSettle(MARGIN_MS);
    for (const process of this.#all) if (process.closingAt === undefined) process.close(clock.time);
    await clock.advanceAndSettle(lease + MARGIN_MS);
    for (const process of this.#all) if (!process.isClosed) this.#fault(`process ${process.index} does not close`);
    for (const [call, process] of this.#asked)
      if (!process.isDead) this.#fault(`a call of process ${process.index} is never answered: ${call}`);
    for (const reader of this.#readers) reader.checkEnd();
    for (const writer of this.#writers) writer.check(this.#all[writer.truth.owner]?.isDead ?? true);
    this.#checkLost();
    await clock.advanceAndSettle(lease + retain + MARGIN_MS);
    if (clock.pending.length > 0) this.#fault(`timers are left, due in ${clock.pending} ms`);
    if (world.watching > 0) this.#fault(`${world.watching} watches are left`);
  }

  /** A run whose producer died is lost when somebody looks. */
  async #lookNow(id: string, expected: string, generation: string): Promise<void> {
    const { step } = this.#world;
    const state = await this.#clock.advanceUntil(this.#pick().runs.state(id));
    const isOther = this.#world.statesSince(id, step).some((known) => known.generation !== generation);
    if (state === "active" && !isOther) this.#fault(`${id} is ${state}, not ${expected}: its producer is dead`);
  }

  /** Checks why runs were lost, and that each run has a producer. */
  #checkLost(): void {
    for (const truth of this.#world.truths.values()) {
      const { owner, generation, endedAt, leaseMs } = truth;
      const process = this.#all[owner] as Process;
      const writer = this.#writers.find((each) => each.truth.generation === generation);
      if (!writer && !truth.isEmptied && !this.#unsure.has(owner) && process.diedAt === Infinity)
        this.#fault(`${truth.name} has begun, and its start was refused`);
      if (truth.end !== "lost" || !writer || process.diedAt <= endedAt || (process.closingAt ?? Infinity) <= endedAt)
        continue;
      if (!truth.isLostByLease) this.#fault(`${truth.name} is lost, but no broker closes`);
      const tries = truth.tries.filter((time) => time > endedAt - leaseMs && time < endedAt);
      if (tries.length < 2 && !writer.run.stopped.aborted)
        this.#fault(`${truth.name} is lost at ${endedAt}: its producer asked at ${truth.tries}`);
    }
  }

  #ask<T>(process: Process, call: Promise<T>): Promise<T> {
    this.#asked.set(call, process);
    const onSettled = (): void => void this.#asked.delete(call);
    call.then(onSettled, onSettled);
    return call;
  }

  #checkCode(what: string, error: unknown, process: Process): void {
    const { code } = error as { code?: string };
    const isExpected =
      code === "closed"
        ? process.closingAt !== undefined
        : code === "engine-down" || code === "publish-outcome-unknown";
    if (!isExpected) this.#fault(`${what} rejects with ${error}`);
  }

  #fault(fault: string): void {
    this.#world.faults.push(`at ${this.#clock.time}: ${fault}`);
  }
}
