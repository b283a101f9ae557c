// The place that keeps the runs of a simulation. It records, from the contract of a store alone, which events a run has and how it ends, and
// compares each answer of the store under test with that record. In between, calls fail, answers are late, and notifications get lost.
import type {
  RunAppend,
  RunEnd,
  RunPage,
  RunStart,
  RunStatus,
  RunStore,
  RunWatch,
} from "../../../src/engine/run-store.ts";
import { BrokerError } from "../../../src/index.ts";
import { MemoryRuns } from "../../../src/runs/memory-runs.ts";
import type { Clock } from "../clock.ts";
import type { Random } from "../random.ts";
import { RunTruth } from "./run-truth.ts";

/** The part of a simulated process that its store has to know. */
export interface Owner {
  readonly index: number;
  /** Whether the process has vanished: its calls do nothing and have no answer. */
  isDead: boolean;
}

interface Watcher {
  readonly id: string;
  readonly owner: Owner;
  readonly onChange: (isStop: boolean) => void;
  /** Before that, changes may be missed. */
  isReady: boolean;
  /** Whether a change was missed that has to be made up for. */
  hasMissed: boolean;
}

/** What becomes of a call. */
type Fate = "done" | "refused" | "unknown-done" | "unknown-not-done" | "unknown-later";

const never = <T>(): Promise<T> => new Promise(() => undefined);
const STORE_BYTES = 64 * 1024 * 1024;
/** The longest delays of a request and of an answer, in milliseconds. */
const MAX_DELAY_MS = 120;

export class RunWorld {
  readonly clock: Clock;
  readonly faults: string[] = [];
  /** Everything that has happened at least once, by name. */
  readonly seen = new Set<string>();
  /** Each run that has ever begun, by its generation. */
  readonly truths = new Map<string, RunTruth>();
  /** The run that has an id now. */
  readonly current = new Map<string, RunTruth>();
  /** Counts what happens, so that it can be said what was before. */
  step = 0;
  /** Whether nothing fails and nothing is late any more. */
  isCalm = false;
  /** The store cannot be reached before this time. */
  downUntil = 0;
  #inner: RunStore = new MemoryRuns(STORE_BYTES);
  readonly #random: Random;
  readonly #isSynchronous: boolean;
  /** The probability that a call fails or is late. */
  readonly #trouble: number;
  readonly #watchers = new Set<Watcher>();
  readonly #states = new Map<
    string,
    { readonly step: number; readonly state: string; readonly generation?: string }[]
  >();

  constructor(clock: Clock, random: Random) {
    this.clock = clock;
    this.#random = random;
    this.#isSynchronous = random.chance(0.3);
    this.#trouble = random.pick([0, 0.1, 0.3, 0.6]);
  }

  open(owner: Owner): RunStore {
    return {
      start: (id, run) => this.#call(owner, () => this.#start(owner, id, run)),
      append: (id, generation, append) => this.#append(owner, id, generation, append),
      renew: (runs) => {
        for (const { generation } of runs) this.truths.get(generation)?.tries.push(this.clock.time);
        return this.#call(owner, () => runs.map(({ id, generation }) => this.#renew(id, generation)));
      },
      read: (id, after, maxBytes) => {
        const isAway = this.clock.time < this.downUntil;
        if (this.#isSynchronous && !isAway && !owner.isDead) return this.#read(id, after, maxBytes);
        return this.#call(owner, () => this.#read(id, after, maxBytes), true);
      },
      requestStop: (id) => this.#call(owner, () => this.#requestStop(id), false, true),
      watch: (id, onChange) => this.#watch(owner, id, onChange),
      close: () => undefined,
    };
  }

  /** Forgets every run. */
  async empty(): Promise<void> {
    this.#inner.close();
    this.#inner = new MemoryRuns(STORE_BYTES);
    for (const [id, truth] of this.current) {
      this.#drop(id, truth);
      truth.isEmptied = true;
    }
    for (const watcher of this.#watchers) this.#makeUp(watcher);
  }

  /** Ends all trouble. */
  calm(): void {
    this.isCalm = true;
    this.downUntil = 0;
    for (const watcher of this.#watchers) if (watcher.hasMissed) this.#makeUp(watcher);
  }

  /** Returns each state that a run has had since a step, and in it. */
  statesSince(id: string, step: number): { readonly state: string; readonly generation?: string }[] {
    const states = this.#states.get(id) ?? [];
    const before = states.findLast((entry) => entry.step <= step) ?? { state: "unknown" };
    return [before, ...states.filter((entry) => entry.step > step)];
  }

  get watching(): number {
    return this.#watchers.size;
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.clock.at(this.clock.time + ms, resolve));
  }

  #fate(isRead: boolean, mayBeLater: boolean): Fate {
    if (this.clock.time < this.downUntil) return isRead || this.#random.chance(0.6) ? "refused" : "unknown-not-done";
    if (this.isCalm || !this.#random.chance(this.#trouble / 2)) return "done";
    if (isRead) return "refused";
    const fates: Fate[] = ["refused", "unknown-done", "unknown-not-done"];
    return this.#random.pick(mayBeLater ? [...fates, "unknown-later"] : fates);
  }

  #delay(): number {
    return this.isCalm || !this.#random.chance(this.#trouble) ? 0 : this.#random.integer(0, MAX_DELAY_MS);
  }

  async #call<T>(owner: Owner, effect: () => T, isRead = false, mayBeLater = false): Promise<T> {
    if (owner.isDead) return never();
    const requestMs = this.#delay();
    if (requestMs > 0) await this.sleep(requestMs);
    // A request may be on its way when its process vanishes.
    if (owner.isDead && this.#random.chance(0.5)) return never();
    const fate = this.#fate(isRead, mayBeLater);
    const answer = fate === "done" || fate === "unknown-done" ? effect() : undefined;
    if (fate === "unknown-later") this.clock.at(this.clock.time + this.#random.integer(1, 400), () => void effect());
    const answerMs = this.#delay();
    if (answerMs > 0) await this.sleep(answerMs);
    if (owner.isDead) return never();
    if (fate === "refused") throw new BrokerError("engine-down", "Not done: the store is away.");
    if (fate !== "done") throw new BrokerError("publish-outcome-unknown", "Done or not: the answer was lost.");
    return answer as T;
  }

  async #append(owner: Owner, id: string, generation: string, append: RunAppend): Promise<boolean> {
    const truth = this.truths.get(generation);
    truth?.tries.push(this.clock.time);
    const answer = await this.#call(owner, () => this.#appendNow(id, generation, append), false, true);
    if (truth && answer) truth.answeredAt = this.clock.time;
    return answer;
  }

  // What the contract says about each call, and its comparison with the store.

  /** Returns the run that has an id. Ends it if its lease is over. */
  #look(id: string): RunTruth | undefined {
    const truth = this.current.get(id);
    if (truth && !truth.end && truth.leaseUntil <= this.clock.time) this.#end(truth, "lost", true);
    // It may be dropped now, and is as soon as another call shows it.
    if (truth?.mayBeGone(this.clock.time) && !this.#inner.read(id, 0, 1)) this.#drop(id, truth);
    return this.current.get(id);
  }

  #start(owner: Owner, id: string, start: RunStart): boolean {
    this.step++;
    const truth = this.#look(id);
    void this.#compare(
      "start",
      this.#inner.start(id, start),
      !truth || !!truth.end || truth.generation === start.generation,
    );
    if (truth?.generation === start.generation) {
      this.seen.add("start: repeated");
      if (!truth.end) truth.renew(this.clock.time);
      return true;
    }
    if (truth && !truth.end) return false;
    if (truth) this.#drop(id, truth);
    // A start may be repeated after its run was lost, or dropped.
    if (this.truths.get(start.generation)?.isGone === false)
      this.faults.push(`two runs have the generation ${start.generation}`);
    const begun = new RunTruth(id, owner.index, start, this.clock.time);
    this.truths.set(start.generation, begun);
    this.current.set(id, begun);
    this.#onState(id);
    this.#check(id);
    this.#notify(id, false);
    return true;
  }

  #appendNow(id: string, generation: string, append: RunAppend): boolean {
    this.step++;
    const { after, texts, end } = append;
    const answer = this.#inner.append(id, generation, append);
    const truth = this.#lookAtLate(id);
    const expected = this.#appendTo(truth?.generation === generation ? truth : undefined, after, texts, end);
    void this.#compare(`append to ${id}`, answer, expected);
    this.#check(id);
    return expected;
  }

  #appendTo(truth: RunTruth | undefined, after: number, texts: readonly string[], end: RunEnd | undefined): boolean {
    if (!truth) return false;
    if (truth.end) {
      const isRepeated = end === truth.end && truth.texts.length === after + texts.length;
      if (isRepeated) this.seen.add("end: repeated");
      return isRepeated;
    }
    if (after > truth.texts.length)
      this.faults.push(`${truth.name}: events after number ${after} are appended to ${truth.texts.length}`);
    if (end && after + texts.length < truth.texts.length) return false;
    const isNew = after + texts.length > truth.texts.length;
    truth.texts.push(...texts.slice(truth.texts.length - after));
    truth.renew(this.clock.time);
    if (isNew) truth.changedAt = this.clock.time;
    if (end) this.#end(truth, end, false);
    else if (isNew) this.#notify(truth.id, false);
    return true;
  }

  #renew(id: string, generation: string): RunStatus {
    this.step++;
    const answer = this.#inner.renew([{ id, generation }]);
    const truth = this.#lookAtLate(id);
    const isLive = truth?.generation === generation && !truth.end;
    if (isLive) truth.renew(this.clock.time);
    const status = !isLive ? "over" : truth.isStopping ? "stopping" : "live";
    void this.#compare(
      `renewal of ${id}`,
      answer.then(([first]) => first),
      status,
    );
    return status;
  }

  #read(id: string, after: number, maxBytes: number): RunPage | undefined {
    this.step++;
    this.#look(id);
    return this.#check(id, after, maxBytes);
  }

  #requestStop(id: string): boolean {
    this.step++;
    const truth = this.#look(id);
    const isLive = truth !== undefined && !truth.end;
    void this.#compare(`stop of ${id}`, this.#inner.requestStop(id), isLive);
    if (!isLive) return false;
    truth.isStopping = true;
    this.#notify(id, true);
    return true;
  }

  /** Returns the run that has an id. If its lease is over, it may have been renewed late, or have ended. The store says which. */
  #lookAtLate(id: string): RunTruth | undefined {
    const truth = this.current.get(id);
    if (!truth || (!truth.end && truth.leaseUntil > this.clock.time)) return truth;
    const page = this.#inner.read(id, 0, 1) as RunPage | undefined;
    if (!truth.end && (!page || page.end === "lost")) this.#end(truth, "lost", true);
    if (!page && truth.mayBeGone(this.clock.time)) this.#drop(id, truth);
    return this.current.get(id);
  }

  /** Reads a run, and compares the page. */
  #check(id: string, after = 0, maxBytes = 1): RunPage | undefined {
    const page = this.#inner.read(id, after, maxBytes) as RunPage | undefined;
    const truth = this.current.get(id);
    const fault = truth ? truth.compare(page, after, this.clock.time) : page && "a run is there that was never begun";
    if (fault) this.faults.push(`at ${this.clock.time}, ${id}: ${fault}`);
    return page;
  }

  async #compare<T>(what: string, answer: Promise<T>, expected: T): Promise<void> {
    const actual = await answer.catch((error: unknown) => error);
    if (actual !== expected) this.faults.push(`${what}: the store answers ${actual}, not ${expected}`);
  }

  #end(truth: RunTruth, end: RunEnd, isByLease: boolean): void {
    truth.end = end;
    truth.changedAt = this.clock.time;
    this.seen.add(isByLease ? "end: lease" : `end: ${end}`);
    truth.isLostByLease = isByLease;
    truth.endedAt = isByLease ? truth.leaseUntil : this.clock.time;
    this.#onState(truth.id);
    this.#notify(truth.id, false);
  }

  #drop(id: string, truth: RunTruth): void {
    truth.isGone = true;
    if (this.current.get(id) === truth) this.current.delete(id);
    this.#onState(id);
  }

  #onState(id: string): void {
    const truth = this.current.get(id);
    const entry = truth
      ? { step: ++this.step, state: truth.end ?? "active", generation: truth.generation }
      : { step: ++this.step, state: "unknown" };
    const states = this.#states.get(id) ?? [];
    this.#states.set(id, states);
    states.push(entry);
  }

  // Notifications.

  #watch(owner: Owner, id: string, onChange: (isStop: boolean) => void): RunWatch {
    const watcher: Watcher = { id, owner, onChange, isReady: true, hasMissed: false };
    this.#watchers.add(watcher);
    let ready: Promise<void> | undefined;
    if (owner.isDead) ready = never();
    else if (!this.isCalm && this.#random.chance(this.#trouble)) ready = this.#becomeReady(watcher);
    return { ready, stop: () => void this.#watchers.delete(watcher) };
  }

  async #becomeReady(watcher: Watcher): Promise<void> {
    watcher.isReady = false;
    await this.sleep(this.#delay());
    watcher.isReady = true;
    if (this.clock.time >= this.downUntil && this.#random.chance(0.7)) return;
    // What was missed until now has nobody noticed.
    throw new BrokerError("engine-down", "Not watched: the store is away.");
  }

  #notify(id: string, isStop: boolean): void {
    for (const watcher of [...this.#watchers]) {
      if (watcher.id !== id || watcher.owner.isDead || !watcher.isReady) continue;
      const mayBeStop = isStop || this.#random.chance(0.2);
      const trouble = !this.isCalm && this.#random.chance(this.#trouble) ? this.#random.integer(0, 2) : -1;
      if (trouble === 0) {
        watcher.hasMissed = true;
        this.#makeUpLater(watcher);
      } else if (trouble === 1) {
        this.clock.at(this.clock.time + this.#delay(), () => this.#tell(watcher, mayBeStop));
      } else {
        this.#tell(watcher, mayBeStop);
        if (trouble === 2) this.#tell(watcher, mayBeStop);
      }
    }
  }

  #makeUpLater(watcher: Watcher): void {
    this.clock.at(this.clock.time + this.#random.integer(1, 1_500), () => this.#makeUp(watcher));
  }

  #makeUp(watcher: Watcher): void {
    watcher.hasMissed = false;
    this.#tell(watcher, true);
  }

  #tell(watcher: Watcher, isStop: boolean): void {
    if (this.#watchers.has(watcher) && !watcher.owner.isDead) watcher.onChange(isStop);
  }
}
