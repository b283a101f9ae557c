// The public keys of an issuer, fetched from its URL. Only `jwt()` uses them. Neither an issuer that is down nor forged tokens may delay tokens
// whose key is known.
import { BrokerError } from "../base/errors.ts";
import { after, now, onWorkers } from "../base/runtime.ts";

/** Milliseconds that a fetch may take. It is shorter than the default `authorizeTimeout`, so that `onError` receives the cause. */
const FETCH_TIMEOUT_MS = 4_000;
/** The least time between two fetches. An unknown key id, which anybody can invent, causes no more of them. */
const PAUSE_MS = 5_000;
/** The age at which keys are fetched again. In the meantime the old ones are used. */
const FRESH_FOR_MS = 600_000;
/** The age at which keys are no longer used. A key that the issuer has withdrawn is accepted for that long if the issuer cannot be reached. */
const USABLE_FOR_MS = 3_600_000;
/** The most requests that wait for a fetch at a time. They count for `maxPending` as well, and must leave room for the others. */
const MAX_WAITING = 50;
/** Milliseconds for which a request on Workers waits for the fetch that it has started because keys are old. */
const WORKER_WAIT_MS = 1_000;

/** The keys of one issuer. `Keys` is what a library makes of the JSON that the issuer answers. */
export class RemoteKeys<Keys> {
  readonly #url: string;
  readonly #parse: (json: unknown) => Keys;
  readonly #isUnknownKey: (error: unknown) => boolean;
  #keys: Keys | undefined;
  #fetchedAt = -Infinity;
  /** When the last fetch ended. */
  #triedAt = -Infinity;
  /** When the last fetch began that no request waits for. */
  #refreshedAt = -Infinity;
  /** Why the last fetch failed. */
  #failure: unknown;
  #fetching: Promise<void> | undefined;
  /** When each of the waiting requests began to wait. */
  readonly #waiting = new Map<object, number>();

  /** `parse` throws if the JSON is not a set of keys. `isUnknownKey` recognizes the error of a token whose key is not in the set. */
  constructor(url: string, parse: (json: unknown) => Keys, isUnknownKey: (error: unknown) => boolean) {
    this.#url = url;
    this.#parse = parse;
    this.#isUnknownKey = isUnknownKey;
  }

  /**
   * Returns what `find` finds in the keys. Fetches the keys if there are none, and again if the key is unknown. The request waits until
   * `signal` is aborted.
   *
   * @throws {@link BrokerError} `at-capacity` if too many requests wait; an error that says why the fetch failed; any error of `find`
   */
  async find<T>(find: (keys: Keys) => Promise<T>, signal: AbortSignal): Promise<T> {
    const age = now() - this.#fetchedAt;
    if (this.#keys && age < USABLE_FOR_MS) {
      if (age >= FRESH_FOR_MS) await this.#refresh();
      try {
        return await find(this.#keys);
      } catch (error) {
        if (!this.#isUnknownKey(error)) throw error;
      }
    }
    await this.#newer(signal);
    return find(this.#keys as Keys);
  }

  /** Fetches keys that have become old, and does not wait for them. */
  async #refresh(): Promise<void> {
    if (this.#fetching || now() - Math.max(this.#triedAt, this.#refreshedAt) < PAUSE_MS) return;
    this.#refreshedAt = now();
    const fetching = this.#fetch().catch(() => undefined);
    // A Worker may end together with its request, and its fetches with it.
    if (onWorkers()) await Promise.race([fetching, new Promise<void>((resolve) => after(WORKER_WAIT_MS, resolve))]);
  }

  /** Waits for newer keys, unless a fetch has just ended. */
  async #newer(signal: AbortSignal): Promise<void> {
    if (!this.#fetching && now() - this.#triedAt < PAUSE_MS) {
      if (this.#failure) throw this.#failure;
      return;
    }
    const waiting = this.#waiting;
    for (const [wait, since] of waiting) {
      // A Worker that ended together with its request left it behind.
      if (now() - since < FETCH_TIMEOUT_MS * 2) break;
      waiting.delete(wait);
    }
    if (waiting.size >= MAX_WAITING)
      throw new BrokerError(
        "at-capacity",
        `Request refused: ${MAX_WAITING} others wait for the keys of the token's issuer; try again later.`,
      );
    const wait = {};
    waiting.set(wait, now());
    const onAbort = (): boolean => waiting.delete(wait);
    signal.addEventListener("abort", onAbort);
    try {
      await this.#fetch();
    } finally {
      signal.removeEventListener("abort", onAbort);
      waiting.delete(wait);
    }
  }

  /** Fetches the keys. All callers share one fetch, but on Workers, where a request cannot wait for another one's. */
  #fetch(): Promise<void> {
    if (this.#fetching !== undefined) return this.#fetching;
    const fetching = fetchJson(this.#url, this.#parse)
      .then(
        (keys) => {
          this.#keys = keys;
          this.#fetchedAt = now();
          this.#failure = undefined;
        },
        (error: unknown) => {
          this.#failure = error;
          throw error;
        },
      )
      .finally(() => {
        this.#triedAt = now();
        this.#fetching = undefined;
      });
    if (!onWorkers()) this.#fetching = fetching;
    return fetching;
  }
}

/** Fetches JSON and parses it. @throws an error whose message names the URL and the reason */
async function fetchJson<T>(url: string, parse: (json: unknown) => T): Promise<T> {
  const abort = new AbortController();
  const cancelTimer = after(FETCH_TIMEOUT_MS, () => abort.abort(), true);
  try {
    // A redirect is refused: who can answer one could choose the keys.
    const response = await fetch(url, {
      headers: { accept: "application/json, application/jwk-set+json" },
      redirect: "manual",
      signal: abort.signal,
    });
    if (response.status !== 200) {
      void response.body?.cancel();
      throw new Error(`the answer is ${response.status}, not 200`);
    }
    return parse(await response.json());
  } catch (cause) {
    const reason = abort.signal.aborted ? `no answer within ${FETCH_TIMEOUT_MS} ms` : (cause as Error).message;
    throw new Error(`Fetching the keys of ${url} failed: ${reason}; check jwks and the issuer.`, { cause });
  } finally {
    cancelTimer();
  }
}
