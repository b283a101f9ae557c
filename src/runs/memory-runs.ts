// The store of runs that are in the memory of one process.
import { BrokerError } from "../base/errors.ts";
import { now } from "../base/runtime.ts";
import { TimeoutQueue } from "../base/timeout-queue.ts";
import type { RunAppend, RunEnd, RunPage, RunStart, RunStatus, RunStore, RunWatch } from "../engine/run-store.ts";
import { RunWatchers } from "../engine/run-watchers.ts";
import { PackedEvents } from "./packed-events.ts";

/** Bytes that a run takes besides its events, about. */
const RUN_BYTES = 512;

class MemoryRun {
  readonly id: string;
  readonly start: RunStart;
  readonly events: PackedEvents;
  end: RunEnd | undefined;
  isStopping = false;
  /** As `now()` counts. */
  leaseUntil: number;

  constructor(id: string, start: RunStart) {
    this.id = id;
    this.start = start;
    this.events = new PackedEvents(start.generation);
    this.leaseUntil = now() + start.leaseMs;
  }

  get bytes(): number {
    return this.events.allocated + RUN_BYTES;
  }

  renew(): void {
    this.leaseUntil = now() + this.start.leaseMs;
  }
}

/** Runs in memory, for the brokers of one log. `maxBytes` bounds all of them together. */
export class MemoryRuns implements RunStore {
  readonly #maxBytes: number;
  readonly #runs = new Map<string, MemoryRun>();
  readonly #watchers = new RunWatchers();
  /** Live runs by the duration of their lease, and ended ones by the time that they are kept. */
  readonly #leases = new Map<number, TimeoutQueue<MemoryRun>>();
  readonly #ended = new Map<number, TimeoutQueue<MemoryRun>>();
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  async start(id: string, start: RunStart): Promise<boolean> {
    const current = this.#find(id);
    if (current?.start.generation === start.generation) {
      if (!current.end) current.renew();
      return true;
    }
    if (current && !current.end) return false;
    this.#checkRoom(current);
    if (current) this.#drop(current);
    const run = new MemoryRun(id, start);
    this.#runs.set(id, run);
    this.#bytes += RUN_BYTES;
    queueOf(this.#leases, start.leaseMs, (late) => this.#onLeaseOver(late)).add(run);
    this.#watchers.notify(id, false);
    return true;
  }

  async append(id: string, generation: string, { after, texts, end }: RunAppend): Promise<boolean> {
    const run = this.#runs.get(id);
    if (run?.start.generation !== generation) return false;
    const { events } = run;
    if (run.end) return end === run.end && events.count === after + texts.length;
    const known = events.count - after;
    if (known < 0 || (end && known > texts.length)) return false;
    const fresh = texts.slice(known);
    if (fresh.length > 0) this.#checkRoom();
    run.renew();
    const { allocated } = events;
    for (const text of fresh) events.append(text);
    this.#bytes += events.allocated - allocated;
    if (end) this.#end(run, end);
    else if (fresh.length > 0) this.#watchers.notify(id, false);
    return true;
  }

  async renew(runs: readonly { readonly id: string; readonly generation: string }[]): Promise<readonly RunStatus[]> {
    return runs.map(({ id, generation }) => {
      const run = this.#runs.get(id);
      if (run?.start.generation !== generation || run.end) return "over";
      run.renew();
      return run.isStopping ? "stopping" : "live";
    });
  }

  read(id: string, after: number, maxBytes: number): RunPage | undefined {
    const run = this.#find(id);
    if (!run) return undefined;
    const { start, events, end, isStopping, leaseUntil } = run;
    const { through, bytes } = events.read(after, maxBytes);
    const { generation, readers } = start;
    const leaseMs = end ? Infinity : leaseUntil - now();
    // Without spreads: this is called for each token and reader.
    return { generation, events: events.count, end, isStopping, leaseMs, readers, through, bytes };
  }

  async requestStop(id: string): Promise<boolean> {
    const run = this.#find(id);
    if (!run || run.end) return false;
    run.isStopping = true;
    this.#watchers.notify(id, true);
    return true;
  }

  watch(id: string, onChange: (isStop: boolean) => void): RunWatch {
    return this.#watchers.watch(id, onChange);
  }

  /** Other brokers may use the store. Each run is dropped in its time. */
  close(): void {
    // Nothing is open.
  }

  /** Returns a run. Ends it first if its lease is over. */
  #find(id: string): MemoryRun | undefined {
    const run = this.#runs.get(id);
    if (run && !run.end && run.leaseUntil <= now()) this.#end(run, "lost");
    return run;
  }

  /** `dropped` is about to give its bytes back. @throws {@link BrokerError} `at-capacity` */
  #checkRoom(dropped?: MemoryRun): void {
    if (this.#bytes - (dropped?.bytes ?? 0) >= this.#maxBytes)
      throw new BrokerError(
        "at-capacity",
        `Run refused: all runs together have ${this.#maxBytes} bytes (memoryBytes); try again later.`,
      );
  }

  #end(run: MemoryRun, end: RunEnd): void {
    run.end = end;
    const { events, start } = run;
    const { allocated } = events;
    events.close();
    this.#bytes += events.allocated - allocated;
    this.#leases.get(start.leaseMs)?.delete(run);
    queueOf(this.#ended, start.retainMs, (old) => this.#drop(old)).add(run);
    this.#watchers.notify(run.id, false);
  }

  #onLeaseOver(run: MemoryRun): void {
    if (run.leaseUntil <= now()) this.#end(run, "lost");
    // It was renewed in the meantime.
    else this.#leases.get(run.start.leaseMs)?.add(run);
  }

  #drop(run: MemoryRun): void {
    this.#ended.get(run.start.retainMs)?.delete(run);
    this.#bytes -= run.bytes;
    if (this.#runs.get(run.id) === run) this.#runs.delete(run.id);
  }
}

/** Returns the queue of a duration. */
function queueOf(
  queues: Map<number, TimeoutQueue<MemoryRun>>,
  ms: number,
  expire: (run: MemoryRun) => void,
): TimeoutQueue<MemoryRun> {
  const queue = queues.get(ms) ?? new TimeoutQueue(ms, expire);
  queues.set(ms, queue);
  return queue;
}
