// The form of a case, and what a test suite provides so that the cases can be run on its engine.
import type { Engine } from "../engine/engine.ts";
import type { Retention } from "../log/log-options.ts";

/** The options of a namespace. An option that is left out has the engine's own default. */
export interface NamespaceOptions {
  /** Bounds of the history of each channel. */
  readonly retention?: Retention | undefined;
  /** Milliseconds for which an idempotency key is remembered. */
  readonly idempotencyWindow?: number | undefined;
}

/** Faults that a harness can cause on the way to a log in another place. Each method resolves when the fault is in effect. */
export interface Faults {
  /** Ends the connection through which the `index`-th engine (from 0) receives events. The engine notices, and can connect again. */
  cutFeed(index: number): void | Promise<void>;
  /**
   * Makes everything vanish that would arrive at the `index`-th engine through its present connection, without a sign. A later connection
   * works. Returns a function that ends the fault.
   */
  swallowFeed(index: number): Undo | Promise<Undo>;
  /** Lets the next append take effect, and loses its answer. */
  loseReply(): void | Promise<void>;
  /** Makes the log unreachable for every engine. */
  goAway(): void | Promise<void>;
  /** Makes the log reachable again for every engine. */
  comeBack(): void | Promise<void>;
  /** Empties the log, so that it does not continue, without a word to the engines. */
  beginAnew(): void | Promise<void>;
}

/** Ends a fault. */
export type Undo = () => void | Promise<void>;

/** The name of a fault. */
export type Fault = keyof Faults;

/**
 * A need of a case: a fault, `presence`, which means that brokers know the clients of other brokers, or `ephemeral`, which means that sessions have
 * `sendEphemeral`.
 */
export type Need = Fault | "ephemeral" | "presence";

/** A log of its own, to which nothing else writes. */
export interface Namespace {
  /** Creates an engine on this log, as each process has one. An engine in the memory of one process returns the same one every time. */
  engine(): Engine;
  /** The faults that the harness offers. */
  readonly faults?: Partial<Faults>;
  /** Called after everything that was opened on its engines is closed. */
  close(): void | Promise<void>;
}

/** Gives the cases access to the engine that they test. */
export interface EngineHarness {
  /** Opens a new log. Each case calls this at least once. */
  open(options?: NamespaceOptions): Namespace | Promise<Namespace>;
  /** Needs of cases that its namespaces fulfil. @default [] */
  readonly offers?: readonly Need[];
  /** Milliseconds, 1 or more, that a case waits for something that must happen. @default 30_000 */
  readonly timeout?: number;
}

/** One requirement of the contract. */
export interface EngineCase {
  /** Stays the same from version to version. */
  readonly id: string;
  /** The requirement, in the words of RFC 2119. */
  readonly title: string;
  /** Needs that the harness must offer. A case that is not run because of a need MUST NOT be counted as passed. */
  readonly needs?: readonly Need[];
  /** Rejects with an `Error` that says what was expected and what was seen. */
  run(harness: EngineHarness): Promise<void>;
}

/** Returns the needs of a case that a harness does not offer. */
export const missingNeeds = ({ needs = [] }: EngineCase, { offers = [] }: Pick<EngineHarness, "offers">): Need[] =>
  needs.filter((need) => !offers.includes(need));
