// A simulated reader of a run: by `runs.read`, or by responses that are cut anywhere and resumed with the last id.
import type { Runs } from "../../../src/runs/index.ts";
import type { Random } from "../random.ts";
import type { RunTruth, TrueEvent } from "./run-truth.ts";
import type { Owner, RunWorld } from "./run-world.ts";

/** A simulated process, for its readers. */
export interface ReadableProcess extends Owner {
  readonly runs: Runs;
  readonly closingAt: number | undefined;
  /** Resolves when the process vanishes. */
  readonly died: Promise<void>;
}

const TRAILER = "data: [DONE]\n\n";
const URL_OF_RUN = "https://fanwire.test/run";
/** The refusals of a response, by status. */
const CODES: Readonly<Record<number, string>> = {
  400: "bad-request",
  404: "unknown-run",
  410: "run-lost",
  503: "closed",
};
/** Problems after which a reader comes again. */
const COME_AGAIN = new Set(["closed", "engine-down", "at-capacity"]);

export class RunReader {
  readonly #world: RunWorld;
  readonly #random: Random;
  readonly #id: string;
  readonly #pickProcess: () => ReadableProcess;
  readonly #name: string;
  #truth: RunTruth | undefined;
  /** The number of the last event that was received. */
  #number = 0;
  #received = 0;
  #sinceStep = 0;
  #hasTrailer = false;
  #doing = "";
  #kind = "read";
  /** Until when it does not read. */
  #pausedUntil = 0;
  /** How it ended. */
  result: string | undefined;

  constructor(world: RunWorld, random: Random, id: string, pickProcess: () => ReadableProcess) {
    this.#world = world;
    this.#random = random;
    this.#id = id;
    this.#pickProcess = pickProcess;
    this.#name = `reader of ${id} from ${world.clock.time} on`;
  }

  /** Iterates over the run. */
  async iterate(after: string | undefined): Promise<void> {
    const process = this.#pickProcess();
    const { runs, died } = process;
    this.#begin(after);
    const abort = new AbortController();
    const events = runs.read(this.#id, { ...(after === undefined ? {} : { after }), signal: abort.signal });
    const leavesAfter = this.#random.chance(0.2) ? this.#random.integer(0, 5) : Infinity;
    const isByReturn = this.#random.chance(0.5);
    try {
      for (;;) {
        if (this.#random.chance(0.1)) await this.#pause(500);
        if (this.#received >= leavesAfter) {
          if (isByReturn) await events.return?.();
          else abort.abort(new Error("enough"));
        }
        this.#doing = `reads from process ${process.index}`;
        const step = await Promise.race([events.next(), died.then(() => "died" as const)]);
        if (step === "died") return this.#finish("died");
        if (step.done) return this.#finish(this.#received >= leavesAfter && isByReturn ? "left" : "end", process);
        const { id, ...event } = step.value;
        this.#take(id, event);
      }
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      this.#finish(message === "enough" ? "left" : (code ?? message), process);
    }
  }

  /** Reads responses, and comes again with the last id whenever one breaks off. */
  async request(after: string | undefined): Promise<void> {
    const random = this.#random;
    const ended = random.chance(0.8) ? "replay" : 204;
    let lastId = after;
    this.#kind = "response";
    this.#begin(after);
    for (;;) {
      const process = this.#pickProcess();
      this.#sinceStep = this.#world.step;
      const abort = new AbortController();
      const headers = new Headers(lastId === undefined ? {} : { "last-event-id": lastId });
      // An EventSource is refused by a stream that breaks off.
      if (random.chance(0.5)) headers.set("accept", "text/event-stream");
      const request = new Request(URL_OF_RUN, { headers, signal: abort.signal });
      const asking = process.runs.response(this.#id, request, { ended, trailer: TRAILER });
      this.#doing = `asks process ${process.index} after ${lastId}`;
      const response = await Promise.race([
        asking.catch((error: unknown) => String((error as { code?: string }).code ?? error)),
        process.died,
      ]);
      let code = typeof response === "string" ? response : "died";
      if (response instanceof Response) {
        const { status } = response;
        if (status === 204) return this.#finish(ended === 204 ? "nothing" : "end", process);
        if (status === 200) {
          const how = await this.#readBody(response, abort, process);
          if (this.#number > 0 && this.#truth) lastId = `${this.#truth.generation}-${this.#number}`;
          if (how !== "cut") return this.#finish(how, process);
          code = "closed";
        } else code = CODES[status] ?? `status ${status}`;
      }
      this.#world.seen.add("response: resumed");
      if (code !== "died" && !COME_AGAIN.has(code)) return this.#finish(code, process);
      // At the end all processes close.
      if (random.chance(0.1) || (code === "closed" && this.#world.isCalm)) return this.#finish("left");
      await this.#pause(300);
    }
  }

  /** Reads a body up to its end, or up to a byte. Returns "cut" if there may be more. */
  async #readBody(response: Response, abort: AbortController, { died }: ReadableProcess): Promise<"end" | "cut"> {
    const random = this.#random;
    const body = (response.body as ReadableStream<Uint8Array>).getReader();
    let left = random.chance(0.5) ? random.integer(0, 400) : Infinity;
    this.#doing += ", and reads its response";
    const parser = new FrameParser((id, event) => this.#take(id, event));
    try {
      for (;;) {
        if (random.chance(0.2)) await this.#pause(random.pick([50, 50, 3_000]));
        const step = await Promise.race([body.read(), died]);
        if (!step) return "cut";
        if (step.done) break;
        parser.feed(step.value.subarray(0, left));
        left -= step.value.length;
        if (left > 0) continue;
        if (random.chance(0.5)) abort.abort();
        else await body.cancel();
        return "cut";
      }
    } catch {
      return "cut";
    } finally {
      for (const fault of parser.faults) this.#fault(fault);
    }
    this.#hasTrailer = parser.trailers === 1;
    if (!this.#hasTrailer) this.#fault(`has received ${parser.trailers} trailers at the end`);
    return "end";
  }

  async #pause(maxMs: number): Promise<void> {
    const ms = this.#random.integer(1, maxMs);
    this.#pausedUntil = this.#world.clock.time + ms;
    await this.#world.sleep(ms);
  }

  #begin(after: string | undefined): void {
    this.#sinceStep = this.#world.step;
    const [generation = "", number] = after?.split("-") ?? [];
    this.#truth = this.#world.truths.get(generation);
    if (this.#truth) this.#number = Number(number);
  }

  /** Each event follows the one before, and is what was written. */
  #take(id: string, event: TrueEvent): void {
    const [generation = "", number] = id.split("-");
    const truth = this.#world.truths.get(generation);
    if (!truth || truth.id !== this.#id) {
      this.#fault(`has received ${id}, which is of no run with its id`);
      return;
    }
    this.#truth ??= truth;
    if (truth !== this.#truth) {
      this.#fault(`has received ${id} after events of ${this.#truth.generation}`);
      return;
    }
    if (Number(number) !== this.#number + 1) this.#fault(`has received ${id} after number ${this.#number}`);
    this.#number = Number(number);
    this.#received++;
    const expected = truth.events[this.#number - 1];
    if (expected?.data !== event.data || expected.event !== event.event)
      this.#fault(`has received ${JSON.stringify(event)} as ${id}, not ${JSON.stringify(expected)}`);
  }

  /** Checks that it has everything, once there is no trouble, and nothing has changed for so long. */
  checkDelay(ms: number): void {
    const { time } = this.#world.clock;
    const truth = this.#truth;
    if (this.result !== undefined || !truth || truth.isGone || time - Math.max(this.#pausedUntil, truth.changedAt) < ms)
      return;
    if (this.#number < truth.texts.length)
      this.#fault(`waits after event ${this.#number} of ${truth.texts.length}: ${this.#doing}`);
    else if (truth.end ?? truth.leaseUntil + ms < time) this.#fault(`does not notice the end: ${this.#doing}`);
  }

  /** Checks that it has come to an end. */
  checkEnd(): void {
    if (this.result === undefined) this.#fault(`waits for ever, after event ${this.#number}: ${this.#doing}`);
  }

  #finish(result: string, process?: ReadableProcess): void {
    this.result = result;
    this.#world.seen.add(`${this.#kind}: ${result}`);
    const fault = this.#findFault(result, process);
    if (fault !== undefined) this.#fault(`${result}: ${fault}`);
  }

  #findFault(result: string, process: ReadableProcess | undefined): string | undefined {
    const world = this.#world;
    const states = world.statesSince(this.#id, this.#sinceStep);
    const has = (...wanted: string[]): boolean => states.some(({ state }) => wanted.includes(state));
    const truth = this.#truth;
    const total = truth?.texts.length ?? 0;
    switch (result) {
      case "left":
      case "died":
        return undefined;
      case "end":
        // Without an event it is not known which run that was.
        if (!truth) return has("ended", "failed", "stopped") ? undefined : `the run was ${JSON.stringify(states)}`;
        if (truth.end === undefined || truth.end === "lost") return `the run is ${truth.end ?? "live"}`;
        return this.#number === total ? undefined : `${this.#number} of ${total} events were received`;
      case "nothing":
        return has("ended", "failed", "stopped", "lost") ? undefined : `the run was ${JSON.stringify(states)}`;
      case "run-lost":
        if (!truth) return has("lost") ? undefined : `the run was ${JSON.stringify(states)}`;
        if (truth.end !== "lost") return `the run is ${truth.end ?? "live"}`;
        return this.#number === total ? undefined : `${this.#number} of ${total} events were received`;
      case "unknown-run":
        return has("unknown") || truth?.isGone || states.length > 1 ? undefined : "the run was there all the time";
      case "bad-request":
        // Another run has the id, or its events were not stored.
        return states.some(({ generation }) => generation !== undefined && generation !== truth?.generation)
          ? undefined
          : `the id of event ${this.#number} is one of the run`;
      case "closed":
        return process?.closingAt === undefined ? "no broker closes" : undefined;
      case "engine-down":
        return world.isCalm && this.#received > 0 ? "the store is there" : undefined;
      default:
        return "this is no end of a reader";
    }
  }

  #fault(fault: string): void {
    this.#world.faults.push(`at ${this.#world.clock.time}, ${this.#name}: ${fault}`);
  }
}

/** Parses a response as a client does, and finds what a client would not expect. */
class FrameParser {
  readonly faults: string[] = [];
  trailers = 0;
  readonly #onEvent: (id: string, event: TrueEvent) => void;
  readonly #decoder = new TextDecoder();
  #rest = "";
  #lines: string[] = [];

  constructor(onEvent: (id: string, event: TrueEvent) => void) {
    this.#onEvent = onEvent;
  }

  feed(bytes: Uint8Array): void {
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split("\n");
    this.#rest = lines.pop() as string;
    for (const line of lines) {
      if (line.startsWith(":")) continue;
      if (line !== "") this.#lines.push(line);
      else if (this.#lines.length > 0) this.#dispatch(this.#lines.splice(0));
    }
  }

  #dispatch(lines: readonly string[]): void {
    // As the standard says, a block without data is no event.
    if (lines.every((line) => line.startsWith("retry: "))) return;
    if (this.trailers > 0) this.faults.push(`after the trailer follows ${lines}`);
    if (lines.length === 1 && lines[0] === TRAILER.trimEnd()) {
      this.trailers++;
      return;
    }
    // The only order of fields that every client takes.
    const names = lines.map((line) => line.slice(0, line.indexOf(": "))).join();
    if (!/^(event,)?id(,data)+$/.test(names)) this.faults.push(`an event has the fields ${names}`);
    const valuesOf = (name: string): string[] =>
      lines.flatMap((line) => (line.startsWith(`${name}: `) ? [line.slice(name.length + 2)] : []));
    const [id = ""] = valuesOf("id");
    const [event] = valuesOf("event");
    const data = valuesOf("data").join("\n");
    this.#onEvent(id, event === undefined ? { data } : { event, data });
  }
}
