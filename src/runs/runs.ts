// `createRuns`: starts runs, finds them again, and answers requests with them.
import { BrokerError, quote } from "../base/errors.ts";
import { randomName } from "../base/random.ts";
import { after, every } from "../base/runtime.ts";
import { TimeoutQueue } from "../base/timeout-queue.ts";
import { checkKnownKeys, checkNumbers, withDefaults } from "../base/validate.ts";
import { RUNS_HOST, type RunsHost } from "../broker/runs-host.ts";
import type { EngineSession } from "../engine/engine.ts";
import { formatRunId, type RunEnd, type RunStore } from "../engine/run-store.ts";
import { parseEvent } from "../event/sse-format.ts";
import type { Authorize } from "../http/authorize.ts";
import { MemoryRuns } from "./memory-runs.ts";
import { checkSource, type RunFormat, type RunSource } from "./pipe.ts";
import { type Run, RunProducer } from "./run.ts";
import { unknownRun } from "./run-errors.ts";
import { FIRST_PAGE_BYTES, type FollowerListener, followPages, RunFollower, SharedReads } from "./run-follower.ts";
import { positionOf, splitFrames } from "./run-position.ts";
import { checkResponseOptions, comeBackLater, type ResponseOptions, RunResponses } from "./run-response.ts";
import { RunStreams } from "./run-stream.ts";

/** Options of {@link createRuns}. */
export interface RunsOptions {
  /** Milliseconds for which a run is kept after its end, 0 or more. @default 300_000 */
  readonly retain?: number | undefined;
  /**
   * Milliseconds after which a run ends as `lost` if its producer does not show that it is alive, 1,000 to 86,400,000. It does so by itself, three
   * times in this time. @default 30_000
   */
  readonly lease?: number | undefined;
  /** Bytes that the events of one run may have, 1 or more. Beyond that, its producer is refused. @default 4_194_304 (4 MiB) */
  readonly maxRunBytes?: number | undefined;
  /**
   * Bytes that all runs may have where they are in the memory of this process, 1 or more. Beyond that, producers are refused.
   * @default 268_435_456 (256 MiB)
   */
  readonly memoryBytes?: number | undefined;
}

/** Options of `runs.start`. */
export interface StartRunOptions {
  /**
   * Who may read the run by `runs.response`. Subjects, as `authorize` of the broker returns them, hold in every process. A function decides in place
   * of the broker's `authorize`, and only in this process: others refuse. @default the broker's `authorize`, asked about the channel `fanwire-run:<id>`
   */
  readonly authorize?: string | readonly string[] | Authorize | undefined;
  /** The format of the source, as in `run.pipe`. @default "text" */
  readonly format?: RunFormat | undefined;
}

/** Options of `runs.read`. */
export interface ReadRunOptions {
  /** The id of an event of this run: the iterator begins after it. @default the beginning */
  readonly after?: string | undefined;
  /** Whether the iterator waits for more. With `false` it ends with what is stored at the call, whatever becomes of the run. @default true */
  readonly live?: boolean | undefined;
  /** Ends the iterator, which then throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** An event of a run. */
export interface RunEvent {
  readonly id: string;
  /** The event type. */
  readonly event?: string;
  readonly data: string;
}

/** How a run is doing. A run is `unknown` before its start, and some time after its end. */
export type RunState = "active" | RunEnd | "unknown";

/** A run as a reader sees it. */
export interface RunInfo {
  readonly state: RunState;
  /** Number of its events. */
  readonly events: number;
  /** The id of its newest event; `undefined` without one. */
  readonly lastEventId: string | undefined;
}

/** The runs of a broker. All methods may be called detached. */
export interface Runs {
  /**
   * Starts a run, and pipes a source into it if there is one. A run with this id that has ended is replaced.
   *
   * @throws `TypeError`; `BrokerError` `bad-id`, `run-exists` (a live run has this id), `at-capacity`, `closed`, `engine-down`,
   * `publish-outcome-unknown` (nobody knows whether it has begun; if so, it is lost after `lease`)
   */
  start(id: string, source?: RunSource, options?: StartRunOptions): Promise<Run>;
  /**
   * Asks the producer of a run to stop, wherever it is: its `run.stopped` aborts. Resolves with whether the run was live.
   *
   * @throws `BrokerError` `bad-id`, `closed`, `engine-down`
   */
  stop(id: string): Promise<boolean>;
  /** Returns the state of a run. @throws as `stop` */
  state(id: string): Promise<RunState>;
  /** Returns the state of a run, and how many events it has. @throws as `stop` */
  inspect(id: string): Promise<RunInfo>;
  /**
   * Iterates over the events of a run, from its beginning, and ends with it.
   *
   * @throws `BrokerError` `unknown-run`, `run-lost` (behind the last event), `bad-request` for an id of another run, and as `stop`
   */
  read(id: string, options?: ReadRunOptions): AsyncIterableIterator<RunEvent, undefined>;
  /**
   * Answers a request with a run, as a plain event stream: only its events, and comments. It starts after `Last-Event-ID`, `?lastEventId=` or
   * `?offset=` (an id, `-1` for the beginning, `now` for the end), else at the beginning. It ends cleanly only at the end of the run; a broker that
   * closes, a client that does not read, and a run that was lost end it with an error.
   */
  response(id: string, request: Request, options?: ResponseOptions): Promise<Response>;
}

const WHERE = "createRuns()";
const DEFAULTS = {
  retain: 300_000,
  lease: 30_000,
  maxRunBytes: 4 * 1024 * 1024,
  memoryBytes: 256 * 1024 * 1024,
};
const MIN_LEASE_MS = 1_000;
const MAX_LEASE_MS = 86_400_000;
const START_OPTIONS = new Set(["authorize", "format"]);
const READ_OPTIONS = new Set(["after", "live", "signal"]);
/** The longest time that `broker.close()` waits for the runs of this process, in milliseconds. */
const RELEASE_MS = 1_000;
/** Calls of `start` whose outcome is not known are repeated for so many milliseconds. */
const START_MS = 5_000;
const RETRY_MS = 100;

/** The stores of runs in memory, by log: brokers that share an engine share their runs. */
const memoryStores = new WeakMap<object, MemoryRuns>();

/** A broker, or an object that opens one: not always the same, because an object that is emptied has another one afterwards. */
interface BrokerWithRuns {
  readonly [RUNS_HOST]?: RunsHost | (() => RunsHost);
}

/**
 * Creates the runs of a broker: streams of events that have a beginning and an end, which clients can read from any event on, and a lost connection,
 * a reload or a second reader changes nothing. Does nothing else yet. Runs are kept where the broker's engine keeps its log.
 *
 * @example
 * const runs = createRuns(broker);
 * await runs.start("answer-1", model.stream(prompt));
 * return runs.response("answer-1", request);
 * @throws `TypeError` and `RangeError` for options that are not valid
 */
export function createRuns(broker: object, options: RunsOptions = {}): Runs {
  const settings = withDefaults<typeof DEFAULTS>(WHERE, "option", DEFAULTS, options);
  const { retain, lease, maxRunBytes, memoryBytes } = settings;
  checkNumbers(WHERE, { retain }, 0);
  checkNumbers(WHERE, { lease }, MIN_LEASE_MS, MAX_LEASE_MS);
  checkNumbers(WHERE, { maxRunBytes, memoryBytes }, 1);
  if ((broker as BrokerWithRuns | undefined)?.[RUNS_HOST] === undefined)
    throw new TypeError(
      `${WHERE} refused: its first argument must be a broker of createBroker(), or a BrokerObject. A hub() has no runs: create them in the object.`,
    );
  const manager = new RunManager(broker as BrokerWithRuns, settings);
  return {
    start: (id, source, startOptions) => manager.start(id, source, startOptions),
    stop: (id) => manager.stop(id),
    state: async (id) => (await manager.inspect(id)).state,
    inspect: (id) => manager.inspect(id),
    read: (id, readOptions) => manager.read(id, readOptions),
    response: (id, request, responseOptions) => manager.response(id, request, responseOptions),
  };
}

/** The parts that exist once the store is open. */
interface OpenRuns {
  readonly core: RunsHost["core"];
  readonly store: RunStore;
  readonly reads: SharedReads;
  readonly responses: RunResponses;
  /** Ends the streams and the live runs of this process. */
  close(): Promise<void>;
}

class RunManager {
  readonly #broker: BrokerWithRuns;
  readonly #settings: typeof DEFAULTS;
  readonly #producers = new Set<RunProducer>();
  /** Functions that end the iterators of `read`. */
  readonly #readers = new Set<(error: BrokerError) => void>();
  /** Functions that decide who may read, by the generation of their run. They stay for as long as it does. */
  readonly #authorize = new Map<string, Authorize>();
  readonly #kept: TimeoutQueue<string>;
  #opened: OpenRuns | undefined;
  #stopRenewing: (() => void) | undefined;

  constructor(broker: BrokerWithRuns, settings: typeof DEFAULTS) {
    this.#broker = broker;
    this.#settings = settings;
    // The lease of a run that its producer has given up may not be over.
    this.#kept = new TimeoutQueue(settings.retain + settings.lease, (generation) => this.#authorize.delete(generation));
  }

  async start(id: string, source?: RunSource, options: StartRunOptions = {}): Promise<Run> {
    checkKnownKeys("start()", "option", START_OPTIONS, options);
    const { authorize, format } = options;
    if (source !== undefined) checkSource(source, { format });
    const { core, store } = this.#open(id);
    const generation = randomName(12);
    const { lease, retain, maxRunBytes } = this.#settings;
    const readers = typeof authorize === "function" ? "[]" : readersOf(authorize, core);
    await this.#begin(() => store.start(id, { generation, leaseMs: lease, retainMs: retain, readers }), id);
    try {
      core.checkOpen();
    } catch (error) {
      // Nobody would renew its lease. What fails here, the end of the lease does.
      void store.append(id, generation, { after: 0, texts: [], end: "lost" }).catch(() => undefined);
      throw error;
    }
    if (typeof authorize === "function") this.#authorize.set(generation, authorize);
    const { serialize, maxEventBytes } = core.settings;
    const settings = {
      ...{ rules: { serialize, maxEventBytes }, lease, retain, maxRunBytes },
      reportError: (error: unknown) => void core.reportError("run", error),
    };
    const producer = new RunProducer(id, generation, store, settings, (over) => this.#onOver(over));
    this.#producers.add(producer);
    this.#stopRenewing ??= every(lease / 3, () => void this.#renew());
    if (source !== undefined)
      producer.pipe(source, { format }).catch((error: unknown) => {
        // Somebody else has begun to read it while the run began.
        settings.reportError(error);
        void producer.close("failed").catch(() => undefined);
      });
    return producer;
  }

  /** Begins a run. A call whose outcome is not known is repeated. */
  async #begin(start: () => Promise<boolean>, id: string): Promise<void> {
    let unsure: unknown;
    for (let leftMs = START_MS; ; leftMs -= RETRY_MS) {
      try {
        if (await start()) return;
        break;
      } catch (error) {
        if ((error as Partial<BrokerError>).code === "publish-outcome-unknown") unsure = error;
        if (!unsure) throw error;
        if (leftMs <= 0) throw unsure;
      }
      await new Promise<void>((resolve) => after(RETRY_MS, resolve));
    }
    throw new BrokerError(
      "run-exists",
      `Run not started: a live run has the id ${quote(id)}. Read that one, or stop it.`,
    );
  }

  async stop(id: string): Promise<boolean> {
    return this.#open(id).store.requestStop(id);
  }

  async inspect(id: string): Promise<RunInfo> {
    const page = await this.#open(id).store.read(id, 0, 1);
    if (!page) return { state: "unknown", events: 0, lastEventId: undefined };
    const { generation, events, end } = page;
    return {
      state: end ?? "active",
      events,
      lastEventId: events > 0 ? formatRunId(generation, events) : undefined,
    };
  }

  async *read(id: string, options: ReadRunOptions = {}): AsyncGenerator<RunEvent, undefined> {
    checkKnownKeys("read()", "option", READ_OPTIONS, options);
    const { store, reads } = this.#open(id);
    const page = await store.read(id, 0, options.after === undefined ? FIRST_PAGE_BYTES : 1);
    if (!page) throw unknownRun(id);
    const { generation } = page;
    const start = positionOf(page, options.after);
    const position = { id, generation, after: start, first: start === 0 ? page : undefined };
    let left = options.live === false ? page.events - start : Infinity;
    if (left === 0) return undefined;
    const follow = (listener: FollowerListener): RunFollower => new RunFollower(position, { store, reads }, listener);
    for await (const bytes of followPages(follow, options.signal, this.#readers))
      for (const frame of splitFrames(bytes)) {
        yield parseEvent(frame);
        if (--left === 0) return undefined;
      }
    return undefined;
  }

  async response(id: string, request: Request, options: ResponseOptions = {}): Promise<Response> {
    const checked = checkResponseOptions(options);
    const { http, core } = this.#host();
    return http.respond(request, {}, async ({ searchParams }) => {
      try {
        return await this.#open(id).responses.answer(id, request, searchParams, checked);
      } catch (error) {
        return comeBackLater(error, request, core);
      }
    });
  }

  /** Checks the id of a run, and opens the store. @throws `TypeError`; {@link BrokerError} `bad-id`, `closed`, `engine-down` */
  #open(id: string): OpenRuns {
    const host = this.#host();
    const { core } = host;
    core.checkOpen();
    core.names.runId(id);
    if (this.#opened?.core !== core) {
      void this.#opened?.close();
      this.#opened = this.#openHost(host);
    }
    return this.#opened;
  }

  #openHost(host: RunsHost): OpenRuns {
    const { core } = host;
    const session = core.openSession();
    const onError = (error: unknown): void => void core.reportError("engine", error);
    const store = session.openRuns?.(onError) ?? this.#memoryStore(session);
    const { heartbeat, timeout, tolerance } = core.settings;
    const streams = new RunStreams(heartbeat, timeout * Math.max(1, tolerance));
    const reads = new SharedReads(store);
    const responses = new RunResponses(host, store, reads, streams, (page) => this.#authorize.get(page.generation));
    let closing: Promise<void> | undefined;
    // Once: by then the runs of this process may be those of another broker.
    const close = (): Promise<void> => (closing ??= this.#close(store, streams));
    core.onClose.add(close);
    return { core, store, reads, responses, close };
  }

  #host(): RunsHost {
    const member = this.#broker[RUNS_HOST];
    return (typeof member === "function" ? member.call(this.#broker) : member) as RunsHost;
  }

  #memoryStore(session: EngineSession): RunStore {
    if (session.presence)
      throw new BrokerError("engine-refused", "Runs refused: the engine has several processes, and no place for runs.");
    const store = memoryStores.get(session.log) ?? new MemoryRuns(this.#settings.memoryBytes);
    memoryStores.set(session.log, store);
    return store;
  }

  /** Shows that the producers of this process are alive. */
  async #renew(): Promise<void> {
    const producers = [...this.#producers];
    try {
      const states = (await this.#opened?.store.renew(producers)) ?? [];
      for (const [index, state] of states.entries()) producers[index]?.onStatus(state);
    } catch {
      // The next renewal is soon enough. The store has reported why.
    }
  }

  #onOver(producer: RunProducer): void {
    this.#producers.delete(producer);
    if (this.#authorize.has(producer.generation)) this.#kept.add(producer.generation);
    if (this.#producers.size > 0) return;
    this.#stopRenewing?.();
    this.#stopRenewing = undefined;
  }

  async #close(store: RunStore, streams: RunStreams): Promise<void> {
    streams.interrupt("the broker is closing");
    const released = Promise.allSettled(Array.from(this.#producers, (producer) => producer.release()));
    let cancel: (() => void) | undefined;
    await Promise.race([released, new Promise<void>((resolve) => (cancel = after(RELEASE_MS, resolve)))]);
    cancel?.();
    // What this process has ended, they know by now.
    const closed = new BrokerError("closed", "Run not read to its end: the broker is closing. Read on elsewhere.");
    for (const end of [...this.#readers]) end(closed);
    this.#kept.clear();
    store.close();
  }
}

/** Returns the text that a store keeps of the subjects who may read a run. @throws `TypeError` */
function readersOf(authorize: string | readonly string[] | undefined, { names }: RunsHost["core"]): string | undefined {
  if (authorize === undefined) return undefined;
  const subjects: unknown = typeof authorize === "string" ? [authorize] : authorize;
  if (!Array.isArray(subjects))
    throw new TypeError("start() refused: authorize must be a subject, a list of subjects, or a function.");
  return JSON.stringify(subjects.map((subject) => names.subject(subject)));
}
