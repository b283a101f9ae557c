// The producer of one simulated run: what it wrote, what became of it, and the faults that show.
import type { EventInput } from "../../../src/index.ts";
import type { Run, RunCloseReason } from "../../../src/runs/index.ts";
import type { Random } from "../random.ts";
import type { RunTruth, TrueEvent } from "./run-truth.ts";
import type { RunWorld } from "./run-world.ts";

/** What became of a call. */
interface Outcome {
  /** The id of an event, or the code of an error. */
  readonly id?: string;
  readonly code?: string;
  readonly at: number;
}

interface Call {
  readonly event: TrueEvent | undefined;
  readonly end: RunCloseReason | undefined;
  readonly key: string | undefined;
  outcome?: Outcome;
}

interface Piping {
  /** All that the source may yield. */
  readonly data: readonly string[];
  /** How the source ends. */
  readonly how: "ends" | "throws" | "hangs";
  result?: string;
}

const UNKNOWN = "publish-outcome-unknown";
const TEXTS = ["", "é ☃ 🎉", "a\nb", "\n\n", "id: 1-1", "x".repeat(300), " : ", "[DONE]"];
/** Codes that a call on a run may reject with. */
const CODES = new Set([UNKNOWN, "engine-down", "run-ended", "closed", "key-reused"]);

const codeOf = (error: unknown): string => (error as { code?: string }).code ?? String(error);

export class RunWriter {
  readonly run: Run;
  readonly truth: RunTruth;
  readonly #world: RunWorld;
  readonly #random: Random;
  readonly #calls: Call[] = [];
  #count = 0;
  piping: Piping | undefined;
  /** Whether somebody in this process asked to stop by the run itself. */
  hasStopped = false;
  closingAt: number | undefined;

  constructor(run: Run, truth: RunTruth, world: RunWorld, random: Random) {
    this.run = run;
    this.truth = truth;
    this.#world = world;
    this.#random = random;
    run.stopped.addEventListener("abort", () => this.#onStopped());
    if (run.stopped.aborted) this.#onStopped();
  }

  get isOpen(): boolean {
    return !this.run.stopped.aborted && !this.#calls.some(({ end }) => end);
  }

  /** Writes a few events, and waits for none. */
  write(): void {
    const random = this.#random;
    for (let left = random.pick([1, 1, 1, 3, 30]); left > 0; left--) {
      const data = this.#data();
      const type = random.pick([undefined, undefined, "tick"]);
      const event = type === undefined ? { data } : { event: type, data };
      const key = random.chance(0.2) ? `k${random.integer(1, 4)}` : undefined;
      // A key that was used before comes with its event, or with another one.
      const known = key && random.chance(0.8) ? this.#calls.find((call) => call.key === key)?.event : undefined;
      const input = known ?? event;
      this.#record(
        { event: input, end: undefined, key },
        this.run.write(toInput(input), key ? { idempotencyKey: key } : {}),
      );
    }
  }

  close(): void {
    const reason = this.#random.pick(["ended", "ended", "failed", "stopped"] as const);
    const last = this.#random.chance(0.5) ? { data: this.#data() } : undefined;
    this.closingAt ??= this.#world.clock.time;
    this.#record({ event: last, end: reason, key: undefined }, this.run.close(reason, last));
  }

  stop(): void {
    this.hasStopped = true;
    this.run.stop().catch((error: unknown) => this.#fault(`stop() rejects with ${codeOf(error)}`));
  }

  /** Pipes a source into the run. */
  pipe(): void {
    if (this.piping) return;
    const data = Array.from({ length: this.#random.integer(0, 12) }, () => this.#data()).filter((text) => text !== "");
    const piping: Piping = { data, how: this.#random.pick(["ends", "ends", "throws", "hangs"]) };
    this.piping = piping;
    const chunks = this.#chunks(piping);
    const source = this.#random.chance(0.5) ? chunks : streamOf(chunks);
    this.run.pipe(source).then(
      (result) => {
        piping.result = result;
        this.#world.seen.add(`pipe: ${result}`);
        this.#checkPiped(result);
      },
      (error: unknown) => this.#fault(`pipe() rejects with ${codeOf(error)}`),
    );
  }

  async *#chunks({ data, how }: Piping): AsyncGenerator<string> {
    for (const text of data) {
      if (this.#random.chance(0.4)) await this.#world.sleep(this.#random.integer(1, 300));
      yield text;
    }
    if (how === "throws") throw new Error("The source fails.");
    if (how === "hangs") await new Promise(() => undefined);
  }

  #data(): string {
    return `${this.truth.id}.${this.#count++} ${this.#random.pick(TEXTS)}`;
  }

  #record(call: Call, answer: Promise<{ readonly id: string }>): void {
    this.#calls.push(call);
    const { clock } = this.#world;
    answer.then(
      ({ id }) => {
        call.outcome = { id, at: clock.time };
        this.#checkStored(call, id);
      },
      (error: unknown) => {
        call.outcome = { code: codeOf(error), at: clock.time };
        this.#world.seen.add(`write: ${codeOf(error)}`);
        if (!CODES.has(codeOf(error))) this.#fault(`a call rejects with ${error}`);
      },
    );
  }

  /** A call that resolves has done its work by then. */
  #checkStored({ event, end }: Call, id: string): void {
    const { truth } = this;
    const number = Number(id.slice(truth.generation.length + 1));
    if (!id.startsWith(`${truth.generation}-`)) this.#fault(`the id ${id} is not of generation ${truth.generation}`);
    if (event && !end && !isEqual(truth.events[number - 1], event))
      this.#fault(`event ${number} is ${JSON.stringify(truth.events[number - 1])}, but the id of ${event.data}`);
    if (!end) return;
    if (number !== truth.texts.length) this.#fault(`close resolves with ${id}, after ${truth.texts.length} events`);
    if (!truth.end || truth.end === "lost") this.#fault(`close resolves, and its run is ${truth.end ?? "live"}`);
  }

  #checkPiped(result: string): void {
    const { end } = this.truth;
    if (result !== "lost" && end !== result) this.#fault(`pipe() resolves with ${result}, and the run is ${end}`);
    if (result === "lost" && end && end !== "lost" && !this.#isUnsure()) this.#fault(`pipe(): lost, but it is ${end}`);
  }

  /** Whether an end may be stored without the producer's knowledge. */
  #isUnsure(): boolean {
    const { answeredAt, tries } = this.truth;
    return tries.some((time) => time >= answeredAt);
  }

  /** The signal must have a reason. */
  #onStopped(): void {
    const { truth } = this;
    const { time } = this.#world.clock;
    const { code, message } = this.run.stopped.reason as { code?: string; message: string };
    if (code === "run-ended" && message.includes("asked")) {
      if (!truth.isStopping && !this.hasStopped) this.#fault("is stopped, but nobody has asked to stop");
    } else if (code === "run-ended") {
      if (!truth.end && !truth.isGone) this.#fault("is over for its producer, but it is live");
    } else if (code === "engine-down" || code === UNKNOWN) {
      if (time - truth.answeredAt < truth.leaseMs)
        this.#fault(`is given up ${time - truth.answeredAt} ms after an answer`);
    } else if (code !== "closed") {
      this.#fault(`is stopped because of ${message}`);
    }
  }

  /** Checks everything, once nothing is written any more. `isDead`: the process has vanished, and its calls have no answer. */
  check(isDead: boolean): void {
    const { truth, piping } = this;
    const events = truth.events;
    const accepted = this.#calls.filter(
      ({ event, outcome }) => event && (!outcome || outcome.id || outcome.code === UNKNOWN),
    );
    for (const { event, end, outcome, key } of this.#calls) {
      if (!outcome && !isDead) this.#fault(`a call (${event?.data}, ${end}) is never answered`);
      const isRefused = outcome?.code !== undefined && outcome.code !== UNKNOWN;
      // Another call with the key may have stored it.
      const isThere = event && events.some((stored) => isEqual(stored, event));
      if (isRefused && isThere && !key) this.#fault(`${event.data} was refused (${outcome.code}), and is stored`);
      if (
        isRefused &&
        end &&
        truth.end === end &&
        !this.#calls.some((other) => other.end === end && !other.outcome?.code)
      )
        if (!piping) this.#fault(`close(${end}) was refused (${outcome.code}), and the run is ${truth.end}`);
    }
    const first = this.#calls.find(({ end }) => end);
    if (first?.outcome?.id && !piping) {
      if (truth.end !== first.end) this.#fault(`close(${first.end}) has resolved, and the run is ${truth.end}`);
      if (first.event && !isEqual(events.at(-1), first.event)) this.#fault(`${first.event.data} is not the last event`);
    }
    this.#checkKeys();
    const order = [...new Set(accepted.map(({ event }) => JSON.stringify(event)))];
    const piped = new Set(piping?.data.map((data) => JSON.stringify({ data })));
    const stored = events.map((event) => JSON.stringify(event));
    if (new Set(stored).size < stored.length) this.#fault(`an event is stored twice: ${stored}`);
    const written = stored.filter((event) => !piped.has(event));
    const positions = written.map((event) => order.indexOf(event));
    if (positions.includes(-1)) this.#fault(`an event is stored that nobody wrote: ${written[positions.indexOf(-1)]}`);
    if (positions.some((position, index) => position < (positions[index - 1] ?? -1)))
      this.#fault(`events are stored in the order ${positions}`);
    const source = [...piped].join();
    const copied = stored.filter((event) => piped.has(event)).join();
    if (!source.startsWith(copied)) this.#fault(`the source ${source} is stored as ${copied}`);
    if (piping?.result === "ended" && this.closingAt === undefined && (copied !== source || piping.how !== "ends"))
      this.#fault(`a source that ${piping.how} is said to have ended, with ${copied} of ${source}`);
    if (piping && piping.result === undefined && !isDead) this.#fault("pipe() never resolves");
  }

  /** A key stands for one event. */
  #checkKeys(): void {
    const ids = new Map<string, string>();
    for (const { event, key, outcome } of this.#calls) {
      if (!key || !outcome?.id) continue;
      const name = JSON.stringify([key, event]);
      const first = ids.get(name) ?? outcome.id;
      ids.set(name, first);
      if (first !== outcome.id) this.#fault(`the key ${key} has the ids ${first} and ${outcome.id}`);
    }
  }

  #fault(fault: string): void {
    this.#world.faults.push(`at ${this.#world.clock.time}, ${this.truth.name}: ${fault}`);
  }
}

const isEqual = (one: TrueEvent | undefined, other: TrueEvent): boolean =>
  one?.data === other.data && one.event === other.event;

const toInput = ({ event, data }: TrueEvent): EventInput => (event === undefined ? data : { event, data });

function streamOf(chunks: AsyncGenerator<string>): ReadableStream<string> {
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await chunks.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
  });
}
