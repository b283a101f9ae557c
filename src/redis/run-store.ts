// The runs of all processes, in Redis.
import {
  formatRunEvent,
  type RunAppend,
  type RunEnd,
  type RunPage,
  type RunStart,
  type RunStatus,
  type RunStore,
  type RunWatch,
} from "../engine/run-store.ts";
import { encode } from "../event/sse-format.ts";
import type { Commands, ScriptName } from "./commands.ts";
import { outcomeUnknown } from "./errors.ts";
import { type RunWatches, runName } from "./run-watches.ts";

/** Runs in one call of the script that renews them. */
const RUNS_PER_CALL = 200;
/** Bytes of one page at most. Redis does nothing else while it copies them. */
const MAX_PAGE_BYTES = 1024 * 1024;
/** The longest lease, and the longest time that a run is kept. */
const MAX_MS = 3_650 * 86_400_000;

const duration = (ms: number): string => String(Math.ceil(Math.min(ms, MAX_MS)));

/** Formats events, which arrive as one text. An empty line ends each one, and none has another inside. */
function formatEvents(texts: string, generation: string, after: number): Uint8Array<ArrayBuffer> {
  let frames = "";
  let start = 0;
  for (let number = after + 1; start < texts.length; number++) {
    const blank = texts.indexOf("\n\n", start);
    const end = blank < 0 ? texts.length : blank + 2;
    frames += formatRunEvent(texts.slice(start, end), generation, number);
    start = end;
  }
  return encode(frames);
}

/** Each call is one script. `scripts/run-scripts.ts` says why a script that is executed late, or twice, does no harm. */
export class RedisRuns implements RunStore {
  readonly #commands: Commands;
  readonly #watches: RunWatches;
  readonly #base: string;
  readonly #started: () => Promise<void> | undefined;
  /** What is watched through this store. */
  readonly #open = new Set<RunWatch>();

  /** `started` returns a promise while it is not known yet whether commands can be given. */
  constructor(commands: Commands, watches: RunWatches, base: string, started: () => Promise<void> | undefined) {
    this.#commands = commands;
    this.#watches = watches;
    this.#base = base;
    this.#started = started;
  }

  start(id: string, { generation, leaseMs, retainMs, readers }: RunStart): Promise<boolean> {
    const text = readers === undefined ? [""] : ["1", readers];
    return this.#changeOnce("runStart", id, [generation, duration(leaseMs), duration(retainMs), ...text]);
  }

  async append(id: string, generation: string, { after, texts, end }: RunAppend): Promise<boolean> {
    await this.#started();
    return this.#change("runAppend", [this.#base, runName(id), generation, String(after), end ?? "", ...texts]);
  }

  async renew(runs: readonly { readonly id: string; readonly generation: string }[]): Promise<readonly RunStatus[]> {
    await this.#started();
    const pages: Promise<unknown>[] = [];
    for (let index = 0; index < runs.length; index += RUNS_PER_CALL) {
      const page = runs.slice(index, index + RUNS_PER_CALL);
      const args = page.flatMap(({ id, generation }) => [runName(id), generation]);
      pages.push(this.#commands.run("runRenew", [this.#base, ...args], true));
    }
    return (await Promise.all(pages)).flat() as RunStatus[];
  }

  async read(id: string, after: number, maxBytes: number): Promise<RunPage | undefined> {
    await this.#started();
    const args = [this.#base, runName(id), String(after), String(Math.min(maxBytes, MAX_PAGE_BYTES))];
    const answer = await this.#commands.run("runRead", args);
    if (!Array.isArray(answer)) return undefined;
    const [generation, events, state, isStopping, left, hasReaders, readers, count, texts] = answer as [
      ...[generation: string, events: number, state: "live" | RunEnd, isStopping: number, left: number],
      ...[hasReaders: number, readers: string, count: number, texts: string],
    ];
    const end = state === "live" ? undefined : state;
    return {
      ...{ generation, events, end, isStopping: isStopping === 1, leaseMs: end ? Infinity : left },
      ...{ readers: hasReaders === 1 ? readers : undefined, through: after + count },
      bytes: formatEvents(texts, generation, after),
    };
  }

  requestStop(id: string): Promise<boolean> {
    return this.#changeOnce("runStop", id, []);
  }

  watch(id: string, onChange: (isStop: boolean) => void): RunWatch {
    const watch = this.#watches.add(id, onChange);
    this.#open.add(watch);
    return {
      ready: watch.ready,
      stop: () => {
        this.#open.delete(watch);
        watch.stop();
      },
    };
  }

  close(): void {
    for (const watch of this.#open) watch.stop();
    this.#open.clear();
  }

  /** Changes a run by a command that is counted, so that it is executed once at most, and never late. */
  async #changeOnce(name: ScriptName, id: string, args: readonly string[]): Promise<boolean> {
    await this.#started();
    const commands = this.#commands;
    const number = String(++commands.appends);
    return this.#change(name, [this.#base, runName(id), commands.counter, number, ...args]);
  }

  async #change(name: ScriptName, args: readonly string[]): Promise<boolean> {
    const { answer, isReplicated } = await this.#commands.change(name, args);
    if (answer === "no-counter") this.#commands.onCounterLost();
    if (answer === "stale" || !isReplicated) throw outcomeUnknown();
    return answer === 1;
  }
}
