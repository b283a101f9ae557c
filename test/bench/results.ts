// Collects the outcomes of all rounds.
import type { Outcome } from "./client.ts";
import type { EventsOutcome, Phase } from "./loads/events.ts";
import { median } from "./statistics.ts";

/** A figure of one outcome. */
export type Figure<O extends Outcome = Outcome> = (outcome: O) => number;

/** The outcomes of each load on each server, in the order of rounds. */
export class Results {
  readonly #outcomes = new Map<string, (Outcome | undefined)[]>();

  /** Adds an outcome; `undefined` for a run that failed. */
  add(scenario: string, server: string, outcome: Outcome | undefined): void {
    const key = `${scenario}: ${server}`;
    this.#outcomes.set(key, [...this.of(scenario, server), outcome]);
  }

  of(scenario: string, server: string): readonly (Outcome | undefined)[] {
    return this.#outcomes.get(`${scenario}: ${server}`) ?? [];
  }

  all(): Outcome[] {
    return [...this.#outcomes.values()].flat().filter((outcome) => outcome !== undefined);
  }

  /** Returns the median over all rounds; NaN if it was not measured. */
  median<O extends Outcome>(scenario: string, server: string, figure: Figure<O>): number {
    return median(this.of(scenario, server).flatMap((outcome) => (outcome ? [figure(outcome as O)] : [])));
  }

  /**
   * Returns the median of one server's figure divided by the other's. The division is done per round, because the machine was in about the same
   * state within a round. `scenario` may name one scenario for each server.
   */
  ratio<O extends Outcome>(
    scenario: string | readonly [string, string],
    server: string,
    other: string,
    figure: Figure<O>,
  ): number {
    const [ownScenario, otherScenario] = typeof scenario === "string" ? [scenario, scenario] : scenario;
    const otherOutcomes = this.of(otherScenario, other);
    const pairs = this.of(ownScenario, server).flatMap((outcome, round) => {
      const otherOutcome = otherOutcomes[round];
      return outcome && otherOutcome ? [figure(outcome as O) / figure(otherOutcome as O)] : [];
    });
    return median(pairs);
  }

  toJSON(): unknown {
    return Object.fromEntries(this.#outcomes);
  }
}

/** Returns a figure of the phase with this index. */
export const inPhase =
  (index: number, figure: (phase: Phase) => number): Figure<EventsOutcome> =>
  ({ phases }) => {
    const phase = phases[index];
    return phase ? figure(phase) : Number.NaN;
  };

export const rate = ({ delivered, seconds }: { delivered: number; seconds: number }): number => delivered / seconds;
export const p50 = (phase: Phase): number => phase.p50;
export const p99 = (phase: Phase): number => phase.p99;
export const cpuPerDelivery = ({ cpu, delivered }: { cpu: number; delivered: number }): number => cpu / delivered;
export const cpuPerPublish = ({ cpu, published }: Phase): number => cpu / published;
