import type { ClientInfo, DeliveryReport, Published, Reported } from "../../../src/index.ts";
import type { Clock } from "../clock.ts";
import type { Step } from "./history.ts";
import type { Instance } from "./instance.ts";
import { inboxName } from "./items.ts";
import type { Asked } from "./late-engine.ts";

/** One call of `broadcast` or `broadcastTo`, and what came of it. */
export interface Call {
  readonly instance: Instance;
  readonly at: number;
  /** As readers are told them. */
  readonly channels: readonly string[];
  readonly data: string;
  readonly key: string | undefined;
  readonly recipient: string | undefined;
  /** It was made before, with the same key. */
  readonly isAgain: boolean;
  readonly wantsReport: boolean;
  /** Who was connected. */
  readonly clients: readonly ClientInfo[];
  /** What became of it at the engine, if it was asked and that is known. */
  readonly asked: Asked | undefined;
  /** The broker was told to close before. */
  readonly isLate: boolean;
  answer?: { readonly at: number; readonly id?: string; readonly clients?: number; readonly code?: string };
  report?: DeliveryReport & { readonly at: number };
}

/** Milliseconds until a publisher that does not know whether its event was published sends it again. */
const RETRY = 300;

type Publish = Step & { readonly do: "publish" };
type Again = Step & { readonly do: "again" };

/** Who publishes, and remembers what was answered. */
export class Publisher {
  readonly calls: Call[] = [];
  readonly #instance: (process: 0 | 1) => Instance;
  readonly #asked: readonly Asked[];
  readonly #clock: Clock;
  /** What was published with a key. */
  readonly #keyed: Call[] = [];
  #events = 0;

  /** `asked` is what the engine is asked for, as that grows. */
  constructor(instance: (process: 0 | 1) => Instance, asked: readonly Asked[], clock: Clock) {
    this.#instance = instance;
    this.#asked = asked;
    this.#clock = clock;
  }

  publish({ process, channels, size, report, key }: Omit<Publish, "do" | "times">): void {
    const data = `${this.#events++} ${"x".repeat(size)}`;
    const names = channels.length > 0 ? channels : ["fanwire-common"];
    const call = this.#call(process, names, data, key ? `key ${this.#events}` : undefined, undefined, false, report);
    if (key) this.#keyed.push(call);
  }

  send(process: 0 | 1, id: string, report: boolean): void {
    this.#call(process, [inboxName(id)], `${this.#events++} for ${id}`, undefined, id, false, report);
  }

  /** Once more what was published with a key, so many of those ago. */
  again({ process, ago, report }: Omit<Again, "do">): void {
    const call = this.#keyed.at(-1 - ago) ?? this.#keyed[0];
    if (call) this.#again(process, call, report);
  }

  #again(process: 0 | 1, { channels, data, key }: Call, report: boolean): void {
    this.#call(process, channels, data, key, undefined, true, report);
  }

  #call(
    process: 0 | 1,
    channels: readonly string[],
    data: string,
    key: string | undefined,
    recipient: string | undefined,
    isAgain: boolean,
    wantsReport: boolean,
  ): Call {
    const instance = this.#instance(process);
    const { broker } = instance;
    const at = this.#clock.time;
    const clients = broker.clients();
    const isLate = instance.closing !== undefined;
    const count = this.#asked.length;
    const options = { report: wantsReport, ...(key === undefined ? {} : { idempotencyKey: key }) };
    const channel = channels[0] === "fanwire-common" ? {} : { channels };
    const published =
      recipient === undefined
        ? broker.broadcast(data, { ...channel, ...options })
        : broker.broadcastTo(recipient, data, options);
    // The engine is asked in the call itself.
    const asked = this.#asked[count];
    const call: Call = { instance, at, channels, data, key, recipient, isAgain, wantsReport, clients, isLate, asked };
    this.calls.push(call);
    published.then(
      (answer) => this.#answered(call, answer),
      (error: { readonly code?: string }) => {
        call.answer = { at: this.#clock.time, code: error.code ?? String(error) };
        if (error.code !== "publish-outcome-unknown" || key === undefined) return;
        this.#clock.at(this.#clock.time + RETRY, () => this.#again(process, call, wantsReport));
      },
    );
    return call;
  }

  #answered(call: Call, { id, clients, ...rest }: Published | Reported): void {
    call.answer = { at: this.#clock.time, id, clients };
    if (!("report" in rest)) return;
    void (rest as Pick<Reported, "report">).report.then((report) => {
      call.report = { ...report, at: this.#clock.time };
    });
  }
}
