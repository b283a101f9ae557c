// The retention of each channel in Redis, in the form that scripts take.
import { type LogOptions, type RetentionBounds, retentionOf } from "../log/log-options.ts";

const DAY_MS = 86_400_000;
/** The longest age of a channel, where channels have ages of their own: no command in Redis makes a key permanent again without a rule of its own. */
const MAX_AGE_MS = 3_650 * DAY_MS;
/** The retention of a channel while the option `channels` fails. */
const UNBOUNDED: RetentionBounds = { events: Infinity, bytes: Infinity, age: Infinity };
/** Channels whose retention is remembered. */
const MAX_REMEMBERED = 10_000;

/** Returns a number as the scripts take it. `Infinity` becomes -1. */
export const bound = (value: number): string => (value === Infinity ? "-1" : String(Math.ceil(value)));

/** The retention of single channels: that of the engine, or what the option `channels` says. */
export class ChannelRetention {
  /** The engine's age, as the scripts take it. */
  readonly engineAge: string;
  /** Whether channels have retentions of their own. */
  readonly hasOwn: boolean;
  readonly #bounds: { readonly channels: LogOptions["channels"]; readonly retention: RetentionBounds };
  readonly #remembered = new Map<string, RetentionBounds>();
  readonly #ofEngine: string;
  /** The longest age of a channel that was asked for, in milliseconds. */
  #longestAge: number;

  constructor(retention: RetentionBounds, channels: LogOptions["channels"]) {
    this.#bounds = { retention, channels };
    this.hasOwn = channels !== undefined;
    this.engineAge = bound(retention.age);
    this.#longestAge = retention.age;
    this.#ofEngine = this.#argumentOf(retention);
  }

  /** Milliseconds after which Redis deletes a log that nobody uses, as the scripts take them. */
  get ttl(): string {
    return bound(Math.max(DAY_MS, this.#longestAge * 2));
  }

  /** Returns the retentions of these channels as one argument: one for all if they are the same. */
  argumentOf(keys: readonly string[]): string {
    if (!this.hasOwn) return this.#ofEngine;
    const all = keys.map((key) => this.#argumentOf(this.#of(key)));
    return all.every((each) => each === all[0]) ? (all[0] as string) : all.join(",");
  }

  /** Returns the retained age of a channel, as the scripts take it. */
  ageOf(key: string): string {
    return this.hasOwn ? this.#ageOf(this.#of(key)) : this.engineAge;
  }

  #ageOf({ age }: RetentionBounds): string {
    return bound(this.hasOwn ? Math.min(age, MAX_AGE_MS) : age);
  }

  #argumentOf(retention: RetentionBounds): string {
    return `${bound(retention.events)} ${bound(retention.bytes)} ${this.#ageOf(retention)}`;
  }

  #of(key: string): RetentionBounds {
    let retention = this.#remembered.get(key);
    if (!retention) {
      try {
        retention = retentionOf(this.#bounds, key);
      } catch {
        // The engine refuses publishers and readers. What still comes, such as a notice of lost events, must not wait for an answer.
        return UNBOUNDED;
      }
      if (this.#remembered.size >= MAX_REMEMBERED) this.#remembered.clear();
      this.#remembered.set(key, retention);
      this.#longestAge = Math.max(this.#longestAge, Math.min(retention.age, MAX_AGE_MS));
    }
    return retention;
  }
}
