import type { BrokerError, ErrorStage } from "../base/errors.ts";
import { checkNumbers, withDefaults } from "../base/validate.ts";
import type { ClientInfo, DisconnectReason } from "../delivery/connection.ts";
import type { Engine } from "../engine/engine.ts";
import { memoryEngine } from "../engine/memory-engine.ts";
import type { Authorize } from "../http/authorize.ts";
import { isToken } from "../http/bearer.ts";
import { Cors, type CorsOptions } from "../http/cors.ts";
import type { MaxReplay } from "../log/resume.ts";

/** Options of {@link createBroker}. */
export interface BrokerOptions {
  /** Where events are kept. @default memoryEngine() */
  readonly engine?: Engine;
  /**
   * Milliseconds that a client may be blocked with something to receive before it has failed once. 1 or more; `Infinity` never
   * disconnects anybody. On HTTP/1 progress shows only when about a third of the kernel's send queue (4 MB on Linux) was read, so
   * a client slower than 1.3 MB / (`timeout` × `tolerance`) cannot be told from a dead one. @default 30_000
   */
  readonly timeout?: number;
  /** Failures in a row after which a client is disconnected; 0 and 1 both mean the first. Progress resets the count. @default 3 */
  readonly tolerance?: number;
  /**
   * Milliseconds without an event after which a comment is sent, which keeps proxies patient and finds out who left; it comes at
   * most a sixteenth later. `Infinity` sends none. @default 8_000
   */
  readonly heartbeat?: number;
  /** Milliseconds that clients are told to wait before they reconnect, spread over half to one and a half of it. @default 2_000 */
  readonly retry?: number;
  /** Milliseconds that `broadcastTo` still accepts events for a client after its last connection ended. @default 60_000 */
  readonly inboxLinger?: number;
  /** Makes text of an envelope's `data` that is neither a string nor bytes. @default JSON.stringify */
  readonly serialize?: (data: unknown) => string;
  /** Bytes of an event as encoded; a larger one is refused with `event-too-large`. @default 1_048_576 (1 MiB) */
  readonly maxEventBytes?: number;
  /** Bytes of a request's body; a larger one is answered 413, however long it says it is. @default 65_536 (64 KiB) */
  readonly maxBodyBytes?: number;
  /** Where `fetch` answers. @default { connect: "/connect", broadcast: "/broadcast" } */
  readonly paths?: { readonly connect?: string; readonly broadcast?: string };
  /**
   * Decides who may connect and who may publish, before the body is read. Without it everybody who can reach the server reads
   * every channel, under whatever client id, and nobody publishes through `fetch`.
   */
  readonly authorize?: Authorize;
  /** Milliseconds that `authorize` may take; who waits longer is told to come back. 1 or more. @default 5_000 */
  readonly authorizeTimeout?: number;
  /**
   * Whoever presents this token as `Authorization: Bearer …` may publish anything, without `authorize` being asked. While neither is
   * set, `fetch` accepts no event and answers 403: whoever can reach the server could speak to all its clients otherwise.
   */
  readonly publishToken?: string | undefined;
  /** Which pages of other origins may use the broker. @default none */
  readonly cors?: CorsOptions;
  /**
   * What happens when a client connects with an id that another connection of the same subject has: both receive (`allow`), the new one
   * is answered 409 (`reject`; a native EventSource never comes back after that), or the old one is ended (`replace`). Those without a
   * subject count as one: have `authorize` set it, or one user can end another's stream. @default "allow"
   */
  readonly duplicateIds?: "allow" | "reject" | "replace";
  /**
   * Milliseconds after which a stream is ended, spread over the last half of it; its client comes back and goes on where it was. Moves
   * long-lived clients to other instances. 1 or more. @default Infinity
   */
  readonly maxConnectionAge?: number;
  /**
   * Connections in all, those included that wait for `authorize` and those that were told to end and have not read it; one more is told to come back later. 0 or more.
   * @default 50_000
   */
  readonly maxClients?: number;
  /** Connections of one `subject`; those without one are not counted. 1 or more. @default 100 */
  readonly maxClientsPerSubject?: number;
  /** Connections of one client id. 1 or more. @default 100 */
  readonly maxClientsPerId?: number;
  /** Requests that may wait for `authorize` at a time; one more is told to come back later. 1 or more. @default 1_000 */
  readonly maxPending?: number;
  /** Channels of one client. 0 or more. @default 100 */
  readonly maxChannelsPerClient?: number;
  /** Channels of one event. 1 or more. @default 100 */
  readonly maxChannelsPerEvent?: number;
  /** Length of a channel name, a client id or a key, in UTF-16 code units; from 1 to 1,024. @default 256 */
  readonly maxNameLength?: number;
  /**
   * The most that is replayed to one connection, the newest first; what is before that is told as a gap. The log is a bound by itself.
   * @default { events: Infinity, bytes: Infinity }
   */
  readonly maxReplay?: MaxReplay;
  /**
   * Sends `fanwire-ready` first on every stream, and `fanwire-position` on quiet ones. Without it a client that drops before its first
   * event loses what came. @default true
   */
  readonly announce?: boolean;
  /**
   * Answers errors in your own format. What it throws goes to `onError`, and the default answer is given. Not asked where an EventSource
   * is told to come back later, because that must not be an error to it.
   */
  readonly errorHandler?: (error: BrokerError, request: Request) => Response | Promise<Response>;
  /** A client is registered. What is sent to it from here comes after its replay. Not awaited. */
  readonly onConnect?: (event: { readonly client: ClientInfo; readonly request: Request }) => unknown;
  /** A client is not registered any more. Not awaited. */
  readonly onDisconnect?: (event: { readonly client: ClientInfo; readonly reason: DisconnectReason }) => unknown;
  /** Something went wrong in the background. @default ignores it */
  readonly onError?: (event: { readonly error: unknown; readonly stage: ErrorStage }) => unknown;
}

type Unset = "authorize" | "errorHandler" | "onConnect" | "onDisconnect" | "onError" | "publishToken";
/** Options with every default in its place. */
export interface Settings
  extends Readonly<Required<Omit<BrokerOptions, Unset | "cors" | "paths">>>,
    Readonly<{ [Name in Unset]: BrokerOptions[Name] | undefined }> {
  readonly paths: { readonly connect: string; readonly broadcast: string };
  readonly cors: Cors | undefined;
}

const DEFAULTS = {
  timeout: 30_000,
  tolerance: 3,
  heartbeat: 8_000,
  retry: 2_000,
  inboxLinger: 60_000,
  serialize: JSON.stringify,
  maxEventBytes: 1024 * 1024,
  maxBodyBytes: 64 * 1024,
  announce: true,
  authorize: undefined,
  authorizeTimeout: 5_000,
  publishToken: undefined,
  cors: undefined,
  duplicateIds: "allow",
  maxConnectionAge: Infinity,
  maxClients: 50_000,
  maxClientsPerSubject: 100,
  maxClientsPerId: 100,
  maxPending: 1_000,
  maxChannelsPerClient: 100,
  maxChannelsPerEvent: 100,
  maxNameLength: 256,
  maxReplay: {},
  errorHandler: undefined,
  onConnect: undefined,
  onDisconnect: undefined,
  onError: undefined,
  engine: undefined,
  paths: {},
};
const FUNCTIONS = ["authorize", "serialize", "errorHandler", "onConnect", "onDisconnect", "onError"] as const;
const MAX_REPLAY = { events: Infinity, bytes: Infinity };
const PATHS = { connect: "/connect", broadcast: "/broadcast" };

/** @throws `RangeError` for a number out of its range, `TypeError` for what is no option. */
export function resolveOptions(options: BrokerOptions, where = "createBroker()"): Settings {
  const given = withDefaults<Omit<Settings, "cors"> & BrokerOptions>(where, "option", DEFAULTS, options);
  const maxReplay = withDefaults<Required<MaxReplay>>(where, "maxReplay option", MAX_REPLAY, given.maxReplay);
  const paths = withDefaults<Settings["paths"]>(where, "path", PATHS, given.paths);
  const { tolerance, inboxLinger, timeout, heartbeat, retry, maxConnectionAge, maxEventBytes, maxBodyBytes } = given;
  const { maxClients, maxClientsPerSubject, maxClientsPerId, maxPending, maxNameLength } = given;
  const { maxChannelsPerClient, maxChannelsPerEvent, authorizeTimeout } = given;
  checkNumbers(where, { tolerance, inboxLinger, maxClients, maxChannelsPerClient, ...maxReplay }, 0);
  checkNumbers(where, { timeout, heartbeat, maxEventBytes, maxBodyBytes, authorizeTimeout, maxConnectionAge }, 1);
  checkNumbers(where, { maxClientsPerSubject, maxClientsPerId, maxPending, maxChannelsPerEvent }, 1);
  checkNumbers(where, { maxNameLength }, 1, 1_024);
  if (!Number.isSafeInteger(retry) || retry < 0) {
    throw new RangeError(`${where} refused: retry must be a whole number of milliseconds, not ${String(retry)}.`);
  }
  const check = (isGood: boolean, rule: string): void => {
    if (!isGood) throw new TypeError(`${where} refused: ${rule}.`);
  };
  const { publishToken, duplicateIds, announce, engine, cors } = given;
  check(
    publishToken === undefined || isToken(publishToken),
    "publishToken must be a string that is not empty, or everybody could publish",
  );
  check(["allow", "reject", "replace"].includes(duplicateIds), 'duplicateIds must be "allow", "reject" or "replace"');
  check(typeof announce === "boolean", "announce must be true or false");
  check(engine === undefined || typeof engine?.open === "function", "engine must be one, such as memoryEngine() gives");
  for (const path of Object.values(paths))
    check(typeof path === "string" && path.startsWith("/"), "a path begins with /");
  for (const name of FUNCTIONS) {
    // An authorize that is none must not leave everything open.
    check(given[name] === undefined || typeof given[name] === "function", `${name} must be a function`);
  }
  return Object.freeze({
    ...given,
    maxReplay,
    paths,
    cors: cors === undefined ? undefined : new Cors(cors),
    engine: engine ?? memoryEngine(),
  });
}
