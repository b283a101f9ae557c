import { BrokerError, type ErrorCode, quote, unauthorized } from "../base/errors.ts";
import { after, now } from "../base/runtime.ts";
import { withDefaults } from "../base/validate.ts";
import type { NameRules } from "../event/channel-key.ts";

/** What a request asks for. Names are checked already, the body was not touched. */
export interface AccessRequest {
  readonly request: Request;
  /** What the runtime passed beside the request, such as Bun's server or the bindings of Workers. */
  readonly context: unknown;
  /** `authorize` is asked for both: who may read need not be one who may publish. */
  readonly action: "connect" | "publish";
  /** The channels that are asked for. To publish with none, and no client id, is to publish to everybody. */
  readonly channels: readonly string[];
  /** The client that it wants to be, or to publish to. */
  readonly clientId: string | undefined;
  /**
   * Aborted when the answer is not waited for any more: the deadline is over, the client left, or the broker closed. Heed it: `maxPending`
   * counts those that are waited for.
   */
  readonly signal: AbortSignal;
}

/** What is allowed, and nothing else is: a channel or a client id that was asked for and is not in it is answered 403. */
export interface Grant {
  /** Who it is. `maxClientsPerSubject` counts by it, `duplicateIds` acts only inside it, `Idempotency-Key` holds for it alone. */
  readonly subject?: string | undefined;
  /** The client id. Without one, a client gets a random id, and an event cannot be for a single client. */
  readonly clientId?: string | undefined;
  /** The whole list of channels. A client that asked for none reads all of them; none means what goes to everybody, and the own inbox. */
  readonly channels?: readonly string[] | undefined;
  /** Whether an event may be for everybody. @default false */
  readonly everybody?: boolean | undefined;
  /** When the stream ends; a `Date` or epoch milliseconds. */
  readonly expiresAt?: Date | number | undefined;
}

/** `true`: exactly what was asked for. `false`: 403. A `Response` is the answer itself. */
export type AuthorizeResult = boolean | Grant | Response;

/**
 * Decides who may read and publish what. It may throw a {@link BrokerError}, such as `unauthorized`, or `authorize-unavailable` where it cannot
 * tell now (who asked is told to come back). What else it throws, or an answer that is no verdict, is answered 500. That, and
 * `authorize-unavailable`, goes to `onError`.
 */
export type Authorize = (attempt: AccessRequest) => AuthorizeResult | Promise<AuthorizeResult>;

/** What a request may have, names resolved. */
export interface ResolvedGrant {
  readonly subject?: string | undefined;
  readonly clientId: string | undefined;
  readonly channels: readonly string[];
  /** Epoch milliseconds; `Infinity` for ever. */
  readonly expiresAt: number;
  /** It was let in by `publishToken`. */
  readonly byToken?: boolean;
}

/** Asks the application, so many at a time and each for so long. */
export class AuthorizeQueue {
  readonly #most: number;
  readonly #deadline: number;
  /** How to give up each request that waits for an answer, and since when it does. */
  readonly #waiting = new Map<() => void, number>();
  #closed = false;

  constructor(most: number, deadline: number) {
    this.#most = most;
    this.#deadline = deadline;
  }

  /** Requests that wait for an answer. */
  get pending(): number {
    return this.#waiting.size;
  }

  /** @throws {@link BrokerError} `at-capacity`, `authorize-timeout`, `client-left`, and what `authorize` throws. */
  async run(authorize: Authorize, wish: Omit<AccessRequest, "signal">): Promise<AuthorizeResult> {
    const { signal } = wish.request;
    if (this.#closed) throw new BrokerError("closed", "Refused: the broker is closed.");
    if (this.pending >= this.#most) this.#forget();
    if (this.pending >= this.#most)
      throw new BrokerError("at-capacity", "Refused: too many requests are being decided.");
    const abort = new AbortController();
    let release = (): void => undefined;
    try {
      const given = new Promise<never>((_, reject) => {
        const giveUp = (code: ErrorCode, message: string): void => {
          reject(new BrokerError(code, message));
          abort.abort();
        };
        const leave = (): void => giveUp("client-left", "Refused: the client has left.");
        const close = (): void => giveUp("closed", "Refused: the broker is closing.");
        const cancel = after(this.#deadline, () => giveUp("authorize-timeout", "Refused: the decision took too long."));
        signal.addEventListener("abort", leave);
        this.#waiting.set(close, now());
        release = () => {
          cancel();
          signal.removeEventListener("abort", leave);
          this.#waiting.delete(close);
        };
        if (signal.aborted) leave();
      });
      // Where authorize throws at once, nobody else looks at it.
      given.catch(() => undefined);
      return await Promise.race([given, authorize({ ...wish, signal: abort.signal })]);
    } finally {
      release();
    }
  }

  /** Forgets those that are long over. A Worker may be ended with its request, and its code is not told. */
  #forget(): void {
    for (const [close, since] of this.#waiting) {
      if (now() - since < this.#deadline * 2) return;
      this.#waiting.delete(close);
    }
  }

  /** Waits for no answer any more. */
  close(): void {
    this.#closed = true;
    for (const close of this.#waiting.keys()) close();
  }
}

/**
 * What a verdict allows of what was asked for.
 *
 * @throws {@link BrokerError} `forbidden`, or `unauthorized` if it is over already; `TypeError` for what is no verdict.
 */
export function resolveGrant(
  verdict: Exclude<AuthorizeResult, Response>,
  { action, channels, clientId }: Pick<AccessRequest, "action" | "channels" | "clientId">,
  names: NameRules,
): ResolvedGrant {
  if (verdict === true) return { clientId, channels, expiresAt: Infinity };
  if (verdict === false) throw new BrokerError("forbidden", "Refused: this is not allowed.");
  const reads = action === "connect";
  const granted = checkGrant(verdict, reads && channels.length === 0, names);
  const foreign = channels.find((name) => !granted.channels.includes(name));
  if (foreign !== undefined) throw new BrokerError("forbidden", `Refused: channel ${quote(foreign)} is not granted.`);
  if (clientId !== undefined && clientId !== granted.clientId)
    throw new BrokerError("forbidden", `Refused: client id ${quote(clientId)} is not granted.`);
  if (!reads && clientId === undefined && channels.length === 0 && verdict.everybody !== true)
    throw new BrokerError("forbidden", "Event refused: only some channels are granted; name those it is for.");
  if (granted.expiresAt <= Date.now()) throw unauthorized("Refused: what was granted has expired.");
  return reads && channels.length === 0 ? granted : { ...granted, channels };
}

/** A grant, if it is one; `readsAll`: all of its channels are to be read by one client. */
function checkGrant(grant: unknown, readsAll: boolean, names: NameRules): ResolvedGrant {
  try {
    const { subject, clientId, channels, expiresAt } = withDefaults<Grant>(
      "authorize()",
      "key of a grant",
      GRANT,
      grant,
    );
    if (channels !== undefined && !Array.isArray(channels)) throw new TypeError("its channels are no list");
    const end = expiresAt instanceof Date ? expiresAt.getTime() : expiresAt === undefined ? Infinity : expiresAt;
    if (typeof end !== "number" || Number.isNaN(end)) throw new TypeError("its expiresAt is no time");
    return {
      subject: subject === undefined ? undefined : names.subject(subject),
      clientId: clientId === undefined ? undefined : names.clientId(clientId),
      channels: names.channels(channels ?? [], readsAll ? undefined : Infinity),
      expiresAt: end,
    };
  } catch (cause) {
    // A bad name in it is not the client's fault.
    throw new TypeError(`authorize() gave what is no verdict and allows nothing: ${(cause as Error).message}`, {
      cause,
    });
  }
}

const GRANT = {
  subject: undefined,
  clientId: undefined,
  channels: undefined,
  everybody: undefined,
  expiresAt: undefined,
};
