// The runs of a file: a store whose writes are committed together with the events of a turn.
import { now } from "../base/runtime.ts";
import type { RunAppend, RunPage, RunStart, RunStatus, RunStore, RunWatch } from "../engine/run-store.ts";
import { type Task, tooLarge } from "./batch.ts";
import { type Connection, kindOf } from "./database.ts";
import type { StoredRuns } from "./stored-runs.ts";

/** Rows that the clean-up deletes in one go. To delete large ones takes a while. */
const DROPS_PER_STEP = 64;
/** Milliseconds that one step of the clean-up takes, besides its commit. */
const CLEAN_UP_STEP_MS = 3;

/** The file that has the runs. */
export interface RunsFile {
  readonly runs: StoredRuns;
  /** Commits a task together with the events of this turn. `size` is about how much text it writes. */
  commit(task: Task, size: number): void;
  /** Reads what was committed before the call. `isWritable` is whether the file can be written. @throws {@link BrokerError} `engine-down` */
  readRuns<Result>(body: (db: Connection, isWritable: boolean) => Result): Result;
}

/** The runs of a file, for all brokers that have it open. */
export class FileRuns implements RunStore {
  readonly #file: RunsFile;

  constructor(file: RunsFile) {
    this.#file = file;
  }

  start(id: string, start: RunStart): Promise<boolean> {
    return this.#write(0, () => this.#file.runs.start(id, start));
  }

  append(id: string, generation: string, append: RunAppend): Promise<boolean> {
    let size = 0;
    for (const text of append.texts) size += text.length;
    return this.#write(size, () => this.#file.runs.append(id, generation, append));
  }

  requestStop(id: string): Promise<boolean> {
    return this.#write(0, () => this.#file.runs.requestStop(id));
  }

  /** Leases are in memory only, because no run outlives the process of its producer. */
  async renew(runs: readonly { readonly id: string; readonly generation: string }[]): Promise<readonly RunStatus[]> {
    return this.#file.readRuns(() => this.#file.runs.renew(runs));
  }

  async read(id: string, after: number, maxBytes: number): Promise<RunPage | undefined> {
    const { runs } = this.#file;
    const page = this.#file.readRuns((db, isWritable) =>
      runs.read(id, after, maxBytes, isWritable ? (body) => db.transaction(body) : undefined),
    );
    runs.notify();
    return page;
  }

  watch(id: string, onChange: (isStop: boolean) => void): RunWatch {
    return this.#file.runs.watchers.watch(id, onChange);
  }

  /** The file is closed with the last session. */
  close(): void {
    // Nothing of its own is open.
  }

  #write(size: number, body: () => boolean): Promise<boolean> {
    return new Promise((resolve, reject) => {
      let finish = (): void => undefined;
      const write = (): void => {
        try {
          const result = body();
          finish = () => resolve(result);
        } catch (error) {
          // Any other error concerns the file, and so all that is committed with it.
          if (kindOf(error) !== "too-large") throw error;
          finish = () => reject(tooLarge(error));
        }
      };
      this.#file.commit({ write, run: () => finish(), reject }, size);
    });
  }
}

/** Ends runs whose lease is over, and deletes some rows of those that are no longer kept. Returns whether more is left to do. */
export function cleanUpRuns(db: Connection, runs: StoredRuns): boolean {
  if (!runs.isDue) return false;
  const end = now() + CLEAN_UP_STEP_MS;
  db.transaction(() => {
    do runs.cleanUp(DROPS_PER_STEP);
    while (runs.isDue && now() < end);
  });
  runs.notify();
  return runs.isDue;
}
