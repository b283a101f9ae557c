import type { Outcome } from "./client.ts";
import type { EventsOutcome, Phase } from "./loads/events.ts";
import { median } from "./statistics.ts";

/** A figure of one outcome. */
export type Figure<O extends Outcome = Outcome> = (outcome: O) => number;

/** What came of each load on each server, round by round. */
export class Results {
  readonly #outcomes = new Map<string, (Outcome | undefined)[]>();

  /** `undefined` for a round that came to nothing. */
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

  /** The median over the rounds; NaN where it was not measured. */
  median<O extends Outcome>(scenario: string, server: string, figure: Figure<O>): number {
    return median(this.of(scenario, server).flatMap((outcome) => (outcome ? [figure(outcome as O)] : [])));
  }

  /**
   * The median of one's figure over the other's, round by round, because what was measured in one round had about the same of the
   * machine. `scenario` may be one for each.
   */
  ratio<O extends Outcome>(
    scenario: string | readonly [string, string],
    server: string,
    other: string,
    figure: Figure<O>,
  ): number {
    const [mine, its] = typeof scenario === "string" ? [scenario, scenario] : scenario;
    const others = this.of(its, other);
    const pairs = this.of(mine, server).flatMap((outcome, round) => {
      const against = others[round];
      return outcome && against ? [figure(outcome as O) / figure(against as O)] : [];
    });
    return median(pairs);
  }

  toJSON(): unknown {
    return Object.fromEntries(this.#outcomes);
  }
}

/** A figure of the phase of this number. */
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
