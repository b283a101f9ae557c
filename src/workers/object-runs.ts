// The runs of a Durable Object. Leases are stored, because a producer may be in another place than the instance, and outlive it.
import { BrokerError } from "../base/errors.ts";
import type { RunAppend, RunPage, RunStart, RunStatus, RunStore, RunWatch } from "../engine/run-store.ts";
import { StoredRuns } from "../sqlite/stored-runs.ts";
import type { ObjectStorage, Row } from "./cloudflare.ts";

/** Rows that one alarm deletes at most. */
const DROPS_PER_ALARM = 10_000;
/** The shortest time between two alarms that delete runs, in milliseconds. */
const MIN_CLEANUP_MS = 30_000;

/** The parts of an object's storage that an engine uses. */
export type EngineStorage = Pick<ObjectStorage, "sql" | "transactionSync">;

export class ObjectRuns implements RunStore {
  readonly #storage: EngineStorage;
  readonly #runs: StoredRuns;

  /** `requestWake` asks for a clean-up at a time in epoch milliseconds. */
  constructor(storage: EngineStorage, requestWake: (time: number) => void) {
    this.#storage = storage;
    // An alarm may come in the same millisecond, before a lease is over.
    this.#runs = new StoredRuns((leaseMs) => requestWake(Date.now() + leaseMs + 1));
    const query = (sql: string, ...values: unknown[]): Row[] => [...storage.sql.exec(sql, ...values)];
    this.#runs.load({ all: query, run: query });
  }

  async start(id: string, start: RunStart): Promise<boolean> {
    return this.#write(() => this.#runs.start(id, start));
  }

  async append(id: string, generation: string, append: RunAppend): Promise<boolean> {
    return this.#write(() => this.#runs.append(id, generation, append));
  }

  async renew(runs: readonly { readonly id: string; readonly generation: string }[]): Promise<readonly RunStatus[]> {
    return this.#write(() => this.#runs.renew(runs));
  }

  async read(id: string, after: number, maxBytes: number): Promise<RunPage | undefined> {
    return this.#change(() => this.#runs.read(id, after, maxBytes, (body) => body()));
  }

  async requestStop(id: string): Promise<boolean> {
    return this.#write(() => this.#runs.requestStop(id));
  }

  watch(id: string, onChange: (isStop: boolean) => void): RunWatch {
    return this.#runs.watchers.watch(id, onChange);
  }

  /** Other brokers of the object may use the store. */
  close(): void {
    // Nothing is open.
  }

  get isEmpty(): boolean {
    return this.#runs.isEmpty;
  }

  /**
   * Ends runs whose lease is over, and deletes those that are no longer kept. Returns the milliseconds until it has to be called next; `Infinity`
   * without runs.
   */
  cleanUp(): number {
    this.#write(() => this.#runs.cleanUp(DROPS_PER_ALARM));
    const dropMs = this.#runs.nextDropMs;
    // If rows were left, they are deleted at once.
    return Math.min(Math.max(1, this.#runs.nextLeaseMs + 1), dropMs <= 0 ? 1 : Math.max(MIN_CLEANUP_MS, dropMs));
  }

  /** Runs a change in a transaction. @throws {@link BrokerError} `event-too-large`, `engine-down` */
  #write<Result>(body: () => Result): Result {
    return this.#change(() => this.#storage.transactionSync(body));
  }

  /** Runs a change, and calls the watchers. @throws {@link BrokerError} `event-too-large`, `engine-down` */
  #change<Result>(body: () => Result): Result {
    let result: Result;
    try {
      result = body();
    } catch (cause) {
      throw refusedWrite(cause);
    }
    this.#runs.notify();
    return result;
  }
}

/** Returns the error for a write that the storage refused. */
export function refusedWrite(cause: unknown): BrokerError {
  return /TOOBIG|too big/i.test(String(cause))
    ? new BrokerError("event-too-large", "Event refused: it is larger than a row of SQLite may be (2 MB).", { cause })
    : new BrokerError("engine-down", "Event refused: the object's storage did not accept it.", { cause });
}
