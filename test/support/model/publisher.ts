// The publisher of a simulated history. It records each call with its answer and its report.
import type { ClientInfo, DeliveryReport, Published, Reported } from "../../../src/index.ts";
import type { Clock } from "../clock.ts";
import type { Step } from "./history.ts";
import type { Instance } from "./instance.ts";
import { inboxName } from "./items.ts";
import type { AppendOutcome } from "./late-engine.ts";

/** One call of `broadcast` or `broadcastTo`, and everything that came of it. */
export interface PublishCall {
  readonly instance: Instance;
  readonly at: number;
  /** The public names of its channels. */
  readonly channels: readonly string[];
  readonly data: string;
  readonly key: string | undefined;
  readonly recipient: string | undefined;
  /** Whether it repeats an earlier call with the same key. */
  readonly isRepeat: boolean;
  readonly wantsReport: boolean;
  /** The connections at the time of the call. */
  readonly clients: readonly ClientInfo[];
  /** The outcome at the engine, if the call reached the engine and the engine records outcomes. */
  readonly outcome: AppendOutcome | undefined;
  /** Whether `close()` was called before. */
  readonly isAfterClose: boolean;
  answer?: { readonly at: number; readonly id?: string; readonly clients?: number; readonly code?: string };
  report?: DeliveryReport & { readonly at: number };
}

/** Milliseconds until the publisher repeats a call whose outcome is unknown. */
const RETRY_MS = 300;

type PublishStep = Step & { readonly do: "publish" };
type RepublishStep = Step & { readonly do: "republish" };
type NewCall = Pick<PublishCall, "channels" | "data" | "key" | "recipient" | "isRepeat" | "wantsReport">;

export class Publisher {
  readonly calls: PublishCall[] = [];
  readonly #instance: (process: 0 | 1) => Instance;
  readonly #outcomes: readonly AppendOutcome[];
  readonly #clock: Clock;
  /** Calls with an idempotency key. */
  readonly #keyed: PublishCall[] = [];
  #events = 0;

  /** `outcomes` is the engine's list of outcomes, which grows with each append. */
  constructor(instance: (process: 0 | 1) => Instance, outcomes: readonly AppendOutcome[], clock: Clock) {
    this.#instance = instance;
    this.#outcomes = outcomes;
    this.#clock = clock;
  }

  publish({ process, channels, size, report, key: hasKey }: Omit<PublishStep, "do" | "times">): void {
    const data = `${this.#events++} ${"x".repeat(size)}`;
    const names = channels.length > 0 ? channels : ["fanwire-common"];
    const key = hasKey ? `key ${this.#events}` : undefined;
    const call = this.#call(process, {
      channels: names,
      data,
      key,
      recipient: undefined,
      isRepeat: false,
      wantsReport: report,
    });
    if (hasKey) this.#keyed.push(call);
  }

  publishTo(process: 0 | 1, id: string, report: boolean): void {
    this.#call(process, {
      channels: [inboxName(id)],
      data: `${this.#events++} for ${id}`,
      key: undefined,
      recipient: id,
      isRepeat: false,
      wantsReport: report,
    });
  }

  /** Repeats a call with a key: the last such call, or one before it. */
  republish({ process, ago, report }: Omit<RepublishStep, "do">): void {
    const call = this.#keyed.at(-1 - ago) ?? this.#keyed[0];
    if (call) this.#repeat(process, call, report);
  }

  #repeat(process: 0 | 1, { channels, data, key }: PublishCall, wantsReport: boolean): void {
    this.#call(process, { channels, data, key, recipient: undefined, isRepeat: true, wantsReport });
  }

  #call(process: 0 | 1, newCall: NewCall): PublishCall {
    const { channels, data, key, recipient, wantsReport } = newCall;
    const instance = this.#instance(process);
    const { broker } = instance;
    const at = this.#clock.time;
    const clients = broker.clients();
    const isAfterClose = instance.closing !== undefined;
    const appends = this.#outcomes.length;
    const options = { report: wantsReport, ...(key === undefined ? {} : { idempotencyKey: key }) };
    const target = channels[0] === "fanwire-common" ? {} : { channels };
    const published =
      recipient === undefined
        ? broker.broadcast(data, { ...target, ...options })
        : broker.broadcastTo(recipient, data, options);
    // The broker calls the engine synchronously.
    const outcome = this.#outcomes[appends];
    const call: PublishCall = { ...newCall, instance, at, clients, isAfterClose, outcome };
    this.calls.push(call);
    published.then(
      (answer) => this.#onAnswer(call, answer),
      (error: { readonly code?: string }) => {
        call.answer = { at: this.#clock.time, code: error.code ?? String(error) };
        if (error.code !== "publish-outcome-unknown" || key === undefined) return;
        this.#clock.at(this.#clock.time + RETRY_MS, () => this.#repeat(process, call, wantsReport));
      },
    );
    return call;
  }

  #onAnswer(call: PublishCall, { id, clients, ...rest }: Published | Reported): void {
    call.answer = { at: this.#clock.time, id, clients };
    if (!("report" in rest)) return;
    void (rest as Pick<Reported, "report">).report.then((report) => {
      call.report = { ...report, at: this.#clock.time };
    });
  }
}
