// Overrides: what the application passes to `clientHandler` and `eventHandler` in addition to the request. They win over the query.
import type { BrokerError } from "../base/errors.ts";
import { checkKnownKeys, isPlain } from "../base/validate.ts";
import type { Authorize } from "./authorize.ts";

/** Overrides for every kind of request. */
export interface Overrides {
  /** The second argument of the runtime's fetch handler. With Bun's server here, Bun keeps quiet streams open. */
  readonly context?: unknown;
  /** Decides about this request, in place of the broker's `authorize`. */
  readonly authorize?: Authorize | undefined;
  /** Answers errors of this request. The broker's `errorHandler` is called in place of this one if it is set. */
  readonly errorHandler?: ((error: BrokerError, request: Request) => Response | Promise<Response>) | undefined;
}

/** Overrides for a client that connects. They win over the request's query and headers, and a grant still has to allow them. */
export interface ClientOverrides extends Overrides {
  /** The client id, in place of `?id=`. */
  readonly clientId?: string;
  /** A channel, or several, in place of every `?channel=`. */
  readonly channels?: string | readonly string[];
  /** The id to resume after, in place of `Last-Event-ID` and `?lastEventId=`. An empty one turns both off. */
  readonly lastEventId?: string;
  /**
   * The client's start, unless it resumes after an id: with everything that is retained (`"earliest"`), or with the newest event of each
   * channel (`"latest"`). In place of `?from=` and `?last=`.
   */
  readonly from?: "earliest" | "latest" | undefined;
  /**
   * Number of newest events that each channel starts with, from 1 to 1,000, unless the client resumes after an id. In place of `?last=` and
   * `?from=`.
   */
  readonly last?: number | undefined;
}

/**
 * Overrides for an event. They win over the request's query and headers, and a grant still has to allow them. With `clientId` or `channels`,
 * the query's `id` and `channel` are both ignored.
 */
export interface EventOverrides extends Overrides {
  /** The one client that the event is for, in place of `?id=`. */
  readonly clientId?: string;
  /** A channel, or several, in place of every `?channel=`. */
  readonly channels?: string | readonly string[];
  /**
   * The data, in place of the request's body, which is not read: for a body that a middleware has parsed. A value that is neither a string nor
   * bytes is passed to the broker's `serialize`. `undefined` counts as not given.
   */
  readonly data?: unknown;
  /** The event type, in place of `?type=`. */
  readonly type?: string;
  /** Whether the event is not stored, and is sent at most once. In place of `?ephemeral=`. @default false */
  readonly ephemeral?: boolean;
  /** Identifies the event, so that a repeat is not published again. In place of the header `Idempotency-Key`. */
  readonly idempotencyKey?: string;
  /** Whether to ask for `publishToken`, and to refuse every event if neither that nor `authorize` is set, as `fetch` does. @default false */
  readonly requireToken?: boolean;
}

const OVERRIDES = ["context", "authorize", "errorHandler", "clientId", "channels"];
const CLIENT_OVERRIDES = new Set([...OVERRIDES, "lastEventId", "from", "last"]);
const EVENT_OVERRIDES = new Set([...OVERRIDES, "data", "type", "ephemeral", "idempotencyKey", "requireToken"]);

/** @throws `TypeError` for overrides that are not a plain object, or that have an unknown name. */
export const checkClientOverrides = (overrides: ClientOverrides): void =>
  checkOverrides("clientHandler", overrides, CLIENT_OVERRIDES);

/** @throws as {@link checkClientOverrides} */
export const checkEventOverrides = (overrides: EventOverrides): void =>
  checkOverrides("eventHandler", overrides, EVENT_OVERRIDES);

function checkOverrides(handler: string, overrides: Overrides, known: ReadonlySet<string>): void {
  const where = `${handler}()`;
  // A router that is given the handler itself passes its context or server here. Their properties must not count as overrides.
  if (!isPlain(overrides))
    throw new TypeError(
      `${where} refused: overrides must be a plain object; write (request) => broker.${handler}(request).`,
    );
  checkKnownKeys(where, "override", known, overrides);
  for (const name of ["authorize", "errorHandler"] as const) {
    const value: unknown = overrides[name];
    // A value of another type must not replace the option of the same name and then decide nothing.
    if (value !== undefined && typeof value !== "function")
      throw new TypeError(`${where} refused: ${name} must be a function.`);
  }
}
