// The option `rate`: how many connects, publishes and published bytes a subject or a key may have in a second. Each of the three has a token
// bucket for each key. No timer runs: a bucket is refilled when it is looked at.
import { BrokerError } from "../base/errors.ts";
import { now } from "../base/runtime.ts";
import { checkNumbers, withDefaults } from "../base/validate.ts";
import { isText } from "../event/event.ts";
import { type NameBounds, NameRules } from "../event/name-rules.ts";
import type { ResolvedGrant } from "./authorize.ts";

/** A number per second, above 0. `burst` is what may come at once, 1 or more; by default what comes in one second, and 1 at least. */
export type Rate = number | { readonly perSecond: number; readonly burst?: number };

/** Options of {@link rateLimits}. */
export interface RateOptions {
  /** Requests to connect, HEAD included. @default no limit */
  readonly connects?: Rate;
  /** Requests to publish. @default no limit */
  readonly publishes?: Rate;
  /** Bytes that are published. A body larger than the burst needs a full bucket, and is paid for in full afterwards. @default no limit */
  readonly bytes?: Rate;
  /**
   * Returns the key that a request counts for in place of its subject, such as the address that your proxy puts into a header. It follows the
   * rules of a subject. Without a key a request is not limited. Connects and publishes are then limited before `authorize` is called.
   */
  readonly by?: (request: Request) => string | null | undefined;
}

/** Options of the broker that rates depend on. */
interface RateSettings extends NameBounds {
  readonly serialize: (data: unknown) => string;
}

/**
 * Counts a request, or with `data` the bytes that it publishes. For a request it is called twice: before `authorize` without a grant, where the
 * request counts for its key, and after it, where it counts for the subject if there is no `by`. A batch is counted once more with its `events`,
 * of which the request has been counted as one.
 *
 * @throws {@link BrokerError} `rate-limited`, `bad-id` for a wrong key; and what `by` throws
 */
export type RateLimiter = (
  name: keyof typeof RATES,
  request: Request,
  grant?: ResolvedGrant,
  data?: unknown,
  events?: number,
) => void;

/** The limits that {@link rateLimits} has checked. The broker creates its buckets from them. */
export type RateLimits = (settings: RateSettings) => RateLimiter;

const RATES = { connects: undefined, publishes: undefined, bytes: undefined, by: undefined };
const RATE = { perSecond: undefined, burst: undefined };
/** The lowest rate: one in twelve days. The wait of a client has to fit into its timer, which ends at once after 24 days. */
const MIN_RATE = 1e-6;
/** The most buckets of a broker. */
const MAX_BUCKETS = 100_000;
/** Milliseconds between two searches for full buckets, at least. Otherwise each new key could have all buckets searched. */
const SWEEP_MS = 1_000;
/** Milliseconds that may be missing, because fractions of them are not exact. */
const ROUNDING_MS = 1e-3;

/**
 * Limits what one subject, or one key of `by`, may do in a second. For the option `rate` of a broker; each broker has its own buckets.
 *
 * @example createBroker({ authorize, rate: rateLimits({ connects: { perSecond: 0.5, burst: 10 }, publishes: 20 }) });
 * @throws `RangeError` for a number out of its range, `TypeError` for any other wrong value or name.
 */
export function rateLimits(options: RateOptions): RateLimits {
  const where = "rateLimits()";
  const { by, ...given } = withDefaults<RateOptions>(where, "option", RATES, options);
  if (by !== undefined && typeof by !== "function") throw new TypeError(`${where} refused: by must be a function.`);
  const rates: Rates = {};
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined) continue;
    const { perSecond, burst = perSecond > 1 ? perSecond : 1 }: Exclude<Rate, number> =
      typeof value === "object" ? withDefaults(where, `${name} option`, RATE, value) : { perSecond: value };
    checkNumbers(where, { [name]: perSecond }, MIN_RATE);
    checkNumbers(where, { [`${name}.burst`]: burst }, 1);
    rates[name] = { msEach: 1000 / perSecond, burst };
  }
  return (settings) => createRateLimiter(rates, by, settings);
}

/** The checked rates, by kind: milliseconds for each, and the burst. */
type Rates = Partial<Record<string, { readonly msEach: number; readonly burst: number }>>;

/**
 * Creates the limiter of one broker.
 *
 * A full bucket is the same as none, so it is removed. While all buckets are in use, a key without one is not limited: without its bucket, one
 * of the other keys would have a full one, and if newcomers were refused, somebody who makes up keys could lock out everybody.
 */
function createRateLimiter(rates: Rates, by: RateOptions["by"], { serialize, ...bounds }: RateSettings): RateLimiter {
  const names = new NameRules(bounds);
  /** When each bucket is full again, by kind and key. */
  const buckets = new Map<string, number>();
  let sweepAt = 0;
  return (name, request, grant, data, events) => {
    const limit = rates[name];
    // With `by` a request counts before there is a grant, and otherwise when there is one.
    if (!limit || (data === undefined && events === undefined && !by === !grant)) return;
    const owner = by ? by(request) : grant?.subject;
    if (owner === undefined || owner === null) return;
    // A key may be what a client has sent, and many of them are kept.
    const key = `${name} ${names.subject(owner)}`;
    const cost =
      data === undefined ? (events ?? 1) : new Blob([(isText(data) ? data : serialize(data)) as BlobPart]).size;
    const { msEach, burst } = limit;
    const time = now();
    const fullAt = Math.max(time, (buckets.get(key) ?? 0) - (events ? msEach : 0));
    // A cost over the burst needs a full bucket. What is refused costs nothing.
    const waitMs = fullAt - time + (Math.min(cost, burst) - burst) * msEach - ROUNDING_MS;
    if (waitMs > 0)
      throw new BrokerError("rate-limited", `Request refused: rate.${name} is reached; try again later.`, {
        headers: { "retry-after": `${Math.ceil(waitMs / 1000)}` },
      });
    if (time >= sweepAt) {
      sweepAt = time + SWEEP_MS;
      for (const [old, end] of buckets) if (end <= time) buckets.delete(old);
    }
    if (buckets.has(key) || buckets.size < MAX_BUCKETS) buckets.set(key, fullAt + cost * msEach);
  };
}
