// An engine that keeps its contract and may be late, refuse events, and lose answers. It records what is appended.
import type { AppendResult, Engine, EngineListener, EngineSession, Log, Position } from "../../../src/engine.ts";
import { decode, splitId } from "../../../src/event/sse-format.ts";
import { BrokerError } from "../../../src/index.ts";
import type { Clock } from "../clock.ts";
import type { Delays } from "../engines/memory-session.ts";
import type { AppendedEvent } from "../engines/memory-shared-log.ts";

/** The connection of one process to its engine, and the disturbances of it. */
export interface EngineConnection {
  /** How many of the next appends are refused. */
  commandsToRefuse: number;
  /** Whether the next append happens and its answer is lost. */
  losesNextReply: boolean;
  /** Sets how long requests and answers take from now on. Without `delays` they take no time. */
  delay(delays?: Partial<Delays>): void;
}

/** The outcome of an append. */
export interface AppendOutcome {
  /** Whether nothing was appended, because the event was already in the log. `undefined` if the append was refused. */
  repeated?: boolean;
  answeredAt?: number;
}

export class LateEngine implements Engine {
  readonly appended: AppendedEvent[] = [];
  /** The outcome of each append, in the order of the calls. */
  readonly outcomes: AppendOutcome[] = [];
  log: Log | undefined;
  /** The connection of each session, in the order in which the sessions were opened. */
  readonly connections: EngineConnection[] = [];
  readonly #sessions = new Set<EngineSession>();
  readonly #inner: Engine;
  readonly #clock: Clock;

  constructor(inner: Engine, clock: Clock) {
    this.#inner = inner;
    this.#clock = clock;
  }

  open(listener: EngineListener): EngineSession {
    const onAppended = listener.onAppended.bind(listener);
    // Recorded as soon as a broker has it, which is before the answer.
    listener.onAppended = (entry) => {
      const { text } = splitId(decode(entry.bytes));
      this.#record({ epoch: this.log?.epoch ?? "", seq: entry.seq }, entry.keys, text);
      onAppended(entry);
    };
    const session = this.#inner.open(listener);
    this.log = session.log;
    this.#sessions.add(session);
    const connection = new LateConnection(this.#clock);
    this.connections.push(connection);
    return {
      ...session,
      append: (keys, text, idempotencyKey) => {
        const outcome: AppendOutcome = {};
        this.outcomes.push(outcome);
        return connection.append(outcome, () => {
          const answer = session.append(keys, text, idempotencyKey);
          const record = (appended: AppendResult): AppendResult => {
            outcome.repeated = appended.repeated;
            outcome.answeredAt ??= this.#clock.time;
            return appended;
          };
          return "seq" in answer ? record(answer) : answer.then(record);
        });
      },
      subscribe: () => connection.subscribe(),
      close: (lingerMs) => {
        this.#sessions.delete(session);
        session.close(lingerMs);
      },
    };
  }

  /** Reading has an engine over a file append what waits. */
  settle(): void {
    for (const session of this.#sessions) void session.read?.([], 0);
  }

  #record({ epoch, seq }: Position, keys: readonly string[], text: string): void {
    const isNew = seq > (this.appended.at(-1)?.seq ?? 0);
    if (isNew) this.appended.push({ epoch, seq, keys, text, at: this.#clock.time });
  }
}

class LateConnection implements EngineConnection {
  commandsToRefuse = 0;
  losesNextReply = false;
  readonly #clock: Clock;
  #delays: Partial<Delays> = {};
  /** The last append that was requested and has not happened. Appends happen in the order of the calls. */
  #last: Promise<unknown> | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  delay(delays: Partial<Delays> = {}): void {
    this.#delays = delays;
  }

  append(
    outcome: AppendOutcome,
    append: () => AppendResult | Promise<AppendResult>,
  ): AppendResult | Promise<AppendResult> {
    if (this.commandsToRefuse > 0) {
      this.commandsToRefuse--;
      throw new BrokerError("engine-down", "Event refused: the engine is away.");
    }
    const { losesNextReply } = this;
    const { replies = 0, requests = 0, isUnordered = false } = this.#delays;
    this.losesNextReply = false;
    if (!this.#last && requests === 0 && replies === 0 && !losesNextReply) {
      return append();
    }
    const due = this.#clock.time + requests;
    const appended = (this.#last ?? Promise.resolve()).then(() => this.#until(due)).then(append);
    const last = appended.catch(() => undefined);
    this.#last = last;
    void last.then(() => {
      if (this.#last === last) this.#last = undefined;
    });
    const delay = isUnordered ? Math.floor(Math.random() * (replies + 1)) : replies;
    return this.#answer(outcome, appended, delay, losesNextReply);
  }

  async #answer(
    outcome: AppendOutcome,
    appending: Promise<AppendResult>,
    delay: number,
    isLost: boolean,
  ): Promise<AppendResult> {
    const appended = await appending;
    await this.#until(this.#clock.time + delay);
    outcome.answeredAt = this.#clock.time;
    if (isLost) throw new BrokerError("publish-outcome-unknown", "Event published or not: the answer was lost.");
    return appended;
  }

  /** Subscribing takes as long as a request. */
  subscribe(): Promise<void> | undefined {
    const { requests = 0 } = this.#delays;
    return requests > 0 ? this.#until(this.#clock.time + requests) : undefined;
  }

  #until(time: number): Promise<void> {
    return new Promise((resolve) => {
      if (time > this.#clock.time) this.#clock.at(time, resolve);
      else resolve();
    });
  }
}
