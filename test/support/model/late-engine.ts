import type { AppendResult, Engine, EngineListener, EngineSession, Log } from "../../../src/index.ts";
import { BrokerError } from "../../../src/index.ts";
import type { Clock } from "../clock.ts";
import type { Delays } from "../engines/memory-session.ts";
import type { Appending } from "../engines/memory-shared-log.ts";

/** What one process has of an engine, and what may happen to that. */
export interface Line {
  /** Publications that are refused, counted down. */
  refusals: number;
  /** The next publication happens, and its answer is lost. */
  losesAnswer: boolean;
  delay(delays?: Partial<Delays>): void;
}

/** What became of a publication that an engine was asked for. */
export interface Asked {
  /** Nothing was appended, because it was before; undefined if it was refused. */
  repeated?: boolean;
  answeredAt?: number;
}

/** An engine that keeps its contract, notes what is appended to it, and may be late, refuse, and lose an answer. */
export class LateEngine implements Engine {
  readonly appended: Appending[] = [];
  /** Each publication, in the order of the calls. */
  readonly asked: Asked[] = [];
  log: Log | undefined;
  /** That of each session, in the order in which they were opened. */
  readonly lines: Line[] = [];
  readonly #inner: Engine;
  readonly #clock: Clock;

  constructor(inner: Engine, clock: Clock) {
    this.#inner = inner;
    this.#clock = clock;
  }

  open(follower: EngineListener): EngineSession {
    const session = this.#inner.open(follower);
    this.log = session.log;
    const line = new LateLine(this.#clock);
    this.lines.push(line);
    return {
      ...session,
      append: (keys, text, nonce) => {
        const asked: Asked = {};
        this.asked.push(asked);
        return line.append(asked, () => {
          const appended = this.#append(session, keys, text, nonce);
          asked.repeated = appended.repeated;
          return appended;
        });
      },
      subscribe: () => line.later(),
    };
  }

  #append(session: EngineSession, keys: readonly string[], text: string, nonce: string | undefined): AppendResult {
    const appended = session.append(keys, text, nonce) as AppendResult;
    const { epoch, seq, repeated } = appended;
    if (!repeated) this.appended.push({ epoch, seq, keys, text, at: this.#clock.time });
    return appended;
  }
}

class LateLine implements Line {
  refusals = 0;
  losesAnswer = false;
  readonly #clock: Clock;
  #delays: Partial<Delays> = {};
  /** What was asked for and has not been appended, the last of it: the order of the calls is kept. */
  #last: Promise<unknown> | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  delay(delays: Partial<Delays> = {}): void {
    this.#delays = delays;
  }

  append(asked: Asked, append: () => AppendResult): AppendResult | Promise<AppendResult> {
    if (this.refusals > 0) {
      this.refusals--;
      throw new BrokerError("engine-down", "Refused: the engine is away.");
    }
    const { losesAnswer } = this;
    const { answers = 0, requests = 0, isLoose = false } = this.#delays;
    this.losesAnswer = false;
    if (!this.#last && requests === 0 && answers === 0 && !losesAnswer) {
      asked.answeredAt = this.#clock.time;
      return append();
    }
    const due = this.#clock.time + requests;
    const appended = (this.#last ?? Promise.resolve()).then(() => this.#until(due)).then(append);
    const last = appended.catch(() => undefined);
    this.#last = last;
    void last.then(() => {
      if (this.#last === last) this.#last = undefined;
    });
    const lag = isLoose ? Math.floor(Math.random() * (answers + 1)) : answers;
    return this.#answer(asked, appended, lag, losesAnswer);
  }

  async #answer(asked: Asked, appending: Promise<AppendResult>, lag: number, isLost: boolean): Promise<AppendResult> {
    const appended = await appending;
    await this.#until(this.#clock.time + lag);
    asked.answeredAt = this.#clock.time;
    if (isLost) throw new BrokerError("publish-outcome-unknown", "The answer was lost.");
    return appended;
  }

  /** A connection may have to wait as well. */
  later(): Promise<void> | undefined {
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
