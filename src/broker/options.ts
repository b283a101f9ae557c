// Options of `createBroker`: their types, defaults and checks.
import type { BrokerError, ErrorStage } from "../base/errors.ts";
import { checkNumbers, withDefaults } from "../base/validate.ts";
import type { ClientInfo, DisconnectReason } from "../delivery/connection.ts";
import type { Engine } from "../engine/engine.ts";
import { memoryEngine } from "../engine/memory-engine.ts";
import type { CheckData } from "../event/event.ts";
import type { EventInputOf, EventSchemas } from "../event/event-map.ts";
import { checkBySchemas } from "../event/event-schemas.ts";
import type { Authorize } from "../http/authorize.ts";
import { isToken } from "../http/bearer.ts";
import { Cors, type CorsOptions } from "../http/cors.ts";
import type { BrokerPaths } from "../http/handler.ts";
import type { RateLimiter, RateLimits } from "../http/rate-limits.ts";
import type { MaxReplay } from "../log/resume.ts";
import type { Snapshot } from "./snapshot-run.ts";

/** The argument of `onConnect`. */
export interface ConnectEvent<Inputs = unknown> {
  readonly client: ClientInfo;
  readonly request: Request;
  /**
   * Sends an event to this connection, without an id, behind the replay and before what is published later. It is not stored. Does nothing if the
   * connection has ended.
   *
   * @throws as `broadcast` for a value that is not an event; `BrokerError` `at-capacity` if 64 items wait for the connection
   */
  readonly send: (event: EventInputOf<Inputs>) => void;
}

/** Options of {@link createBroker}. With `Inputs`, a map of event types to their data, the hooks send its events only. */
export interface BrokerOptions<Inputs = unknown> {
  /** The engine that keeps events. @default memoryEngine() */
  readonly engine?: Engine;
  /**
   * Milliseconds for which a connection may be blocked with something to receive until that counts as one failure. 1 or more; `Infinity` never
   * disconnects. On HTTP/1 progress shows only when about a third of the kernel's send queue (4 MB on Linux) was read, so a client slower than
   * 1.3 MB / (`timeout` × `tolerance`) looks like a dead one. @default 30_000
   */
  readonly timeout?: number;
  /** Failures in a row after which a connection is ended; 0 and 1 both mean the first. Progress resets the count. @default 3 */
  readonly tolerance?: number;
  /**
   * Milliseconds without an event after which a comment is sent. The comment keeps proxies from closing the stream, and finds clients that have
   * left. It may be late by a sixteenth. 1 or more; `Infinity` sends none. @default 8_000
   */
  readonly heartbeat?: number;
  /**
   * Milliseconds that clients wait before they reconnect, a whole number, 0 or more. Each client receives a random value between half of it and
   * one and a half. @default 2_000
   */
  readonly retry?: number;
  /** Milliseconds for which `broadcastTo` accepts events for a client after its last connection ended, 0 or more. @default 60_000 */
  readonly inboxLinger?: number;
  /** Turns the `data` of an envelope into text, if it is neither a string nor bytes. @default JSON.stringify */
  readonly serialize?: (data: unknown) => string;
  /**
   * A schema of the data of each event type, by any library that follows Standard Schema 1: `{ price: schema }`. An event without a type is
   * `message`. Other types are refused with `bad-event-type`, and data that does not fit with `bad-event-data`. What a schema returns, at once
   * and not as a promise, is passed to `serialize`, a string too, and sent. @default any type, any data
   */
  readonly events?: EventSchemas | undefined;
  /** The largest event, in bytes as encoded. A larger one is refused with `event-too-large`. 1 or more. @default 1_048_576 (1 MiB) */
  readonly maxEventBytes?: number;
  /** The largest request body, in bytes that were read. A larger one is answered 413. 1 or more. @default 65_536 (64 KiB) */
  readonly maxBodyBytes?: number;
  /** Milliseconds in which the body of a request must be complete. A slower one is answered 408. 1 or more; `Infinity` waits. @default 10_000 */
  readonly bodyTimeout?: number;
  /**
   * The paths that `fetch` serves. `history` is not served unless it is set; `subscribe` and `unsubscribe` are turned off by `false`.
   * @default { connect: "/connect", broadcast: "/broadcast", subscribe: "/subscribe", unsubscribe: "/unsubscribe" }
   */
  readonly paths?: Partial<BrokerPaths>;
  /**
   * Decides who may connect and who may publish, before the body is read. Without it, everybody who can reach the server may read every channel,
   * under any client id, and nobody may publish through `fetch`.
   */
  readonly authorize?: Authorize;
  /** Milliseconds that `authorize` may take; after that the client has to come back later. 1 or more. @default 5_000 */
  readonly authorizeTimeout?: number;
  /**
   * A request that presents this token as `Authorization: Bearer …` may publish anything; `authorize` is not called. Without this option and
   * without `authorize`, `fetch` answers every event 403, because everybody who can reach the server could publish to all its clients.
   */
  readonly publishToken?: string | undefined;
  /**
   * Names of query parameters that are the application's own, such as `["ticket"]`. Any other unknown parameter of an event is refused, because
   * an event for `?chanel=private` would go to everybody. So is one of a client that looks like a known parameter. @default []
   */
  readonly allowQuery?: readonly string[];
  /** Pages of other origins that may use the broker. @default none */
  readonly cors?: CorsOptions;
  /**
   * The treatment of a client that connects with the client id of another connection of the same subject. `allow`: both receive. `reject`: the new
   * one is answered 409, and an EventSource has to come back later. `replace`: the old one is ended. Connections without a subject count as
   * one subject, so have `authorize` return one, or one user can end another's stream. @default "allow"
   */
  readonly duplicateIds?: "allow" | "reject" | "replace";
  /**
   * Milliseconds after which a stream is ended; the exact time is random, between half of this age and all of it. The client reconnects and
   * continues where it was. Moves long-lived clients to other instances. 1 or more. @default Infinity
   */
  readonly maxConnectionAge?: number;
  /**
   * Connections in all, 0 or more; one more has to come back later. Counts also connections that wait for `authorize`, and those that have not
   * read their end event. @default 50_000
   */
  readonly maxClients?: number;
  /**
   * Channels of all connections together, 0 or more: one that n connections read counts n times. A connection that would exceed it has to come
   * back later. Bounds memory: a channel that only one connection reads costs about 1.5 kB. @default 500_000
   */
  readonly maxSubscriptions?: number;
  /** Connections of one `subject`; connections without one are not counted. 1 or more. @default 100 */
  readonly maxClientsPerSubject?: number;
  /** Connections of one client id. 1 or more. @default 100 */
  readonly maxClientsPerId?: number;
  /** Requests that may wait for `authorize` at a time; one more has to come back later. 1 or more. @default 1_000 */
  readonly maxPending?: number;
  /**
   * Limits what a subject, or a key of yours, may do in a second: `rateLimits({ connects, publishes, bytes, by })`. More is answered 429
   * `rate-limited`, and an EventSource has to come back later. Each process counts for itself. @default no limit
   */
  readonly rate?: RateLimits | undefined;
  /** Channels of one client. 0 or more. @default 100 */
  readonly maxChannelsPerClient?: number;
  /** Channels of one event. 1 or more. @default 100 */
  readonly maxChannelsPerEvent?: number;
  /** Length of a channel name, a client id, a subject or an idempotency key, in UTF-16 code units; from 1 to 1,024. @default 256 */
  readonly maxNameLength?: number;
  /**
   * Bounds of the history that one connection receives at its start: the newest events, within both bounds. A gap reports the events before
   * them. The size of the log is a bound as well. @default { events: Infinity, bytes: Infinity }
   */
  readonly maxReplay?: MaxReplay;
  /**
   * Returns the application's state as events, a list or a generator. They are sent to a client whose stream is new, or has a gap, before the
   * events from `position` on. A client that resumes without a gap needs none. Change the state before you publish the change: then nothing is
   * missing between the two. A change may come twice, in the state and as an event. If it fails, the stream ends with `snapshot-failed`, the
   * client comes back, and the error goes to `onError`. @default none
   */
  readonly snapshot?: Snapshot<Inputs> | undefined;
  /** Milliseconds in which a snapshot must be complete, slow clients included. 1 or more; `Infinity` waits. @default 30_000 */
  readonly snapshotTimeout?: number;
  /** Snapshots that may run at a time, 1 or more; the others wait in order, and their clients receive heartbeats. @default 100 */
  readonly maxSnapshots?: number;
  /**
   * Whether every stream starts with `fanwire-ready`, and quiet streams receive `fanwire-position`. Without them, a client that drops before its
   * first event has no id to resume after, and loses the events in between. @default true
   */
  readonly announce?: boolean;
  /**
   * Answers errors in your own format. If it throws, the error goes to `onError` and the default answer is sent. Not called where an EventSource
   * has to come back later: that answer must be a stream. @default problem details (RFC 9457)
   */
  readonly errorHandler?: (error: BrokerError, request: Request) => Response | Promise<Response>;
  /**
   * Called when a connection is registered. Events that it publishes to the client come after the replay; `send` writes to this connection alone.
   * Not awaited.
   */
  readonly onConnect?: (event: ConnectEvent<Inputs>) => unknown;
  /** Called when a connection is no longer registered. Not awaited. */
  readonly onDisconnect?: (event: { readonly client: ClientInfo; readonly reason: DisconnectReason }) => unknown;
  /** Called with an error that no caller waits for. @default prints one a minute of each stage with `console.error` */
  readonly onError?: (event: { readonly error: unknown; readonly stage: ErrorStage }) => unknown;
}

/** Options that have no default value. */
type Unset = "authorize" | "errorHandler" | "onConnect" | "onDisconnect" | "onError" | "publishToken" | "snapshot";
/** Options with all defaults filled in. */
export interface Settings
  extends Readonly<Required<Omit<BrokerOptions, Unset | "cors" | "events" | "paths" | "rate">>>,
    Readonly<{ [Name in Unset]: BrokerOptions[Name] | undefined }> {
  readonly paths: BrokerPaths;
  readonly cors: Cors | undefined;
  readonly events: CheckData | undefined;
  readonly rate: RateLimiter | undefined;
}

/** The longest name that `maxNameLength` allows, in UTF-16 code units. */
const MAX_NAME_LENGTH = 1_024;

const DEFAULTS = {
  timeout: 30_000,
  tolerance: 3,
  heartbeat: 8_000,
  retry: 2_000,
  inboxLinger: 60_000,
  serialize: JSON.stringify,
  events: undefined,
  maxEventBytes: 1024 * 1024,
  maxBodyBytes: 64 * 1024,
  bodyTimeout: 10_000,
  announce: true,
  authorize: undefined,
  authorizeTimeout: 5_000,
  publishToken: undefined,
  cors: undefined,
  allowQuery: [],
  duplicateIds: "allow",
  maxConnectionAge: Infinity,
  maxClients: 50_000,
  maxSubscriptions: 500_000,
  maxClientsPerSubject: 100,
  maxClientsPerId: 100,
  maxPending: 1_000,
  rate: undefined,
  maxChannelsPerClient: 100,
  maxChannelsPerEvent: 100,
  maxNameLength: 256,
  maxReplay: {},
  snapshot: undefined,
  snapshotTimeout: 30_000,
  maxSnapshots: 100,
  errorHandler: undefined,
  onConnect: undefined,
  onDisconnect: undefined,
  onError: undefined,
  engine: undefined,
  paths: {},
};
const FUNCTIONS = [
  "authorize",
  "serialize",
  "errorHandler",
  "onConnect",
  "onDisconnect",
  "onError",
  "snapshot",
] as const;
const MAX_REPLAY = { events: Infinity, bytes: Infinity };
const PATHS = {
  connect: "/connect",
  broadcast: "/broadcast",
  subscribe: "/subscribe",
  unsubscribe: "/unsubscribe",
  history: undefined,
};

/**
 * Checks options and fills in the defaults. `where` names the function in error messages.
 *
 * @throws `RangeError` for a number out of its range, `TypeError` for any other wrong value or name.
 */
export function resolveOptions(options: BrokerOptions, where = "createBroker()"): Settings {
  const given = withDefaults<Omit<Settings, "cors" | "events" | "rate"> & BrokerOptions>(
    where,
    "option",
    DEFAULTS,
    options,
  );
  const maxReplay = withDefaults<Required<MaxReplay>>(where, "maxReplay option", MAX_REPLAY, given.maxReplay);
  const paths = withDefaults<Settings["paths"]>(where, "path", PATHS, given.paths);
  const { tolerance, inboxLinger, timeout, heartbeat, retry, maxConnectionAge, maxEventBytes, maxBodyBytes } = given;
  const { maxClients, maxClientsPerSubject, maxClientsPerId, maxPending, maxNameLength } = given;
  const { maxChannelsPerClient, maxChannelsPerEvent, authorizeTimeout, bodyTimeout, maxSubscriptions } = given;
  const fromZero = { tolerance, inboxLinger, maxClients, maxSubscriptions, maxChannelsPerClient, ...maxReplay };
  checkNumbers(where, fromZero, 0);
  checkNumbers(where, { timeout, heartbeat, maxEventBytes, maxBodyBytes, authorizeTimeout, maxConnectionAge }, 1);
  checkNumbers(where, { maxClientsPerSubject, maxClientsPerId, maxPending, maxChannelsPerEvent, bodyTimeout }, 1);
  checkNumbers(where, { snapshotTimeout: given.snapshotTimeout, maxSnapshots: given.maxSnapshots }, 1);
  checkNumbers(where, { maxNameLength }, 1, MAX_NAME_LENGTH);
  if (!Number.isSafeInteger(retry) || retry < 0) {
    throw new RangeError(`${where} refused: retry must be a whole number of milliseconds, not ${String(retry)}.`);
  }
  const check = (isValid: boolean, rule: string): void => {
    if (!isValid) throw new TypeError(`${where} refused: ${rule}.`);
  };
  const { publishToken, duplicateIds, announce, engine, cors, events, allowQuery, rate } = given;
  check(
    publishToken === undefined || isToken(publishToken),
    "publishToken must be a string that is not empty, or everybody could publish",
  );
  check(["allow", "reject", "replace"].includes(duplicateIds), 'duplicateIds must be "allow", "reject" or "replace"');
  check(rate === undefined || typeof rate === "function", "rate must be rateLimits({ … })");
  check(typeof announce === "boolean", "announce must be true or false");
  check(engine === undefined || typeof engine?.open === "function", "engine must be an engine, such as memoryEngine()");
  check(
    Array.isArray(allowQuery) && allowQuery.every((name) => typeof name === "string"),
    "allowQuery must be a list of names",
  );
  for (const [name, path] of Object.entries(paths))
    check(
      path === undefined ||
        (path === false && name.endsWith("subscribe")) ||
        (typeof path === "string" && path.startsWith("/")),
      "a path must begin with /",
    );
  for (const name of FUNCTIONS) {
    // A wrong `authorize` must not leave everything open.
    check(given[name] === undefined || typeof given[name] === "function", `${name} must be a function`);
  }
  return Object.freeze({
    ...given,
    maxReplay,
    paths,
    cors: cors === undefined ? undefined : new Cors(cors),
    events: events && checkBySchemas(where, events),
    rate: rate?.(given),
    engine: engine ?? memoryEngine(),
  });
}
