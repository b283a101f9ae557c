import type { Engine } from "../engine/engine.ts";
import type { Retention } from "../log/log.ts";

/** How a namespace is to be set up. What is left out is the engine's own default. */
export interface NamespaceOptions {
  /** What is kept of each channel. */
  readonly retention?: Retention | undefined;
  /** Milliseconds that the key of an event is remembered. */
  readonly idempotencyWindow?: number | undefined;
}

/** What can happen to an engine whose log is in another place. Each resolves when it has happened. */
export interface Faults {
  /** Ends the connection by which the `index`-th engine (from 0) is told of events. The engine can see that, and make another. */
  cutFeed(index: number): void | Promise<void>;
  /**
   * Has everything vanish that would come to the `index`-th engine by the connection there is now, with no sign; one that is made
   * afterwards is sound. What it answers lets things pass again.
   */
  swallowFeed(index: number): Undo | Promise<Undo>;
  /** Has the next append take place and its answer be lost. */
  loseReply(): void | Promise<void>;
  /** No engine reaches the log any more. */
  goAway(): void | Promise<void>;
  /** Every engine reaches the log again. */
  comeBack(): void | Promise<void>;
  /** Empties the log behind the engines' back, so that it does not continue. */
  beginAnew(): void | Promise<void>;
}

/** Takes a fault back. */
export type Undo = () => void | Promise<void>;

/** The name of a fault. */
export type Fault = keyof Faults;

/** What a case needs beside engines: a fault, or `presence`: that brokers know of the clients of others. */
export type Need = Fault | "presence";

/** A log of its own, which nothing else writes to. */
export interface Namespace {
  /** An engine as a process of its own would have it, on this log. */
  engine(): Engine;
  /** Those that the harness offers. */
  readonly faults?: Partial<Faults>;
  /** Called when all that was made of its engines is closed. */
  close(): void | Promise<void>;
}

/** How the cases get at the engine that they are about. */
export interface EngineHarness {
  /** Called once or more by each case. */
  open(options?: NamespaceOptions): Namespace | Promise<Namespace>;
  /** What its namespaces can do beside. @default [] */
  readonly offers?: readonly Need[];
  /** Milliseconds, 1 or more, after which something that has to happen counts as not happening. @default 30_000 */
  readonly patience?: number;
}

/** One requirement of the contract. */
export interface EngineCase {
  /** Stays the same from version to version. */
  readonly id: string;
  /** What is required, in the words of RFC 2119. */
  readonly title: string;
  /** What the harness has to offer. A case that is not run for want of it MUST NOT be counted as passed. */
  readonly needs?: readonly Need[];
  /** Rejects with an `Error` that says what was expected and what was seen. */
  run(harness: EngineHarness): Promise<void>;
}

/** What a case needs and a harness does not offer. */
export const missing = ({ needs = [] }: EngineCase, { offers = [] }: EngineHarness): readonly Need[] =>
  needs.filter((need) => !offers.includes(need));
