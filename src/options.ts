import { checkNumbers } from "./check.ts";
import type { ClientInfo, DisconnectReason } from "./client.ts";
import type { Engine } from "./engine.ts";
import { memoryEngine } from "./engines/memory.ts";
import type { BrokerError } from "./errors.ts";

/**
 * Where an error came from that nobody was there to receive: a hook (`on-connect`, `on-disconnect`, `error-handler`), a `request`
 * that was answered 500, or `overrun`: more was published at once than the log holds, and clients that were not slow lost events
 * (they were told).
 */
export type ErrorStage = "on-connect" | "on-disconnect" | "error-handler" | "request" | "overrun";

/** Options of {@link createBroker}. */
export interface BrokerOptions {
  /** Where events are kept. @default memoryEngine() */
  readonly engine?: Engine;
  /**
   * Milliseconds that a client may be blocked with something to receive before it has failed once. More than 0; `Infinity` never
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
   * `fetch` accepts events from whoever presents this token as `Authorization: Bearer …`. Without it, `fetch` accepts none and
   * answers 403: whoever can reach the server could speak to all its clients otherwise.
   */
  readonly publishToken?: string | undefined;
  /** Sends `fanwire-ready` first on every stream. Without it a client that drops before its first event loses what came. @default true */
  readonly announce?: boolean;
  /** Answers errors in your own format. What it throws goes to `onError`, and the default answer is given. */
  readonly errorHandler?: (error: BrokerError, request: Request) => Response | Promise<Response>;
  /** A client is registered. What is sent to it from here comes after its replay. Not awaited. */
  readonly onConnect?: (event: { readonly client: ClientInfo; readonly request: Request }) => unknown;
  /** A client is not registered any more. Not awaited. */
  readonly onDisconnect?: (event: { readonly client: ClientInfo; readonly reason: DisconnectReason }) => unknown;
  /** Something went wrong in the background. @default ignores it */
  readonly onError?: (event: { readonly error: unknown; readonly stage: ErrorStage }) => unknown;
}

type Unset = "errorHandler" | "onConnect" | "onDisconnect" | "onError" | "publishToken";
/** Options with every default in its place. */
export interface Settings
  extends Readonly<Required<Omit<BrokerOptions, Unset | "paths">>>,
    Readonly<{ [Name in Unset]: BrokerOptions[Name] | undefined }> {
  readonly paths: { readonly connect: string; readonly broadcast: string };
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
  publishToken: undefined,
  errorHandler: undefined,
  onConnect: undefined,
  onDisconnect: undefined,
  onError: undefined,
  engine: undefined,
  paths: undefined,
};
const PATHS = { connect: "/connect", broadcast: "/broadcast" };

/** @throws `RangeError` for a number out of its range, `TypeError` for what is no option. */
export function resolveOptions(options: BrokerOptions): Settings {
  const settings: Omit<Settings, "engine"> & Pick<BrokerOptions, "engine"> = {
    ...overlay<Settings>("option", DEFAULTS, options),
    paths: overlay<Settings["paths"]>("path", PATHS, options.paths ?? {}),
  };
  const { timeout, heartbeat, tolerance, retry, inboxLinger, maxEventBytes, maxBodyBytes, publishToken } = settings;
  checkNumbers("createBroker()", { tolerance, inboxLinger }, 0);
  checkNumbers("createBroker()", { timeout, heartbeat, maxEventBytes, maxBodyBytes }, 1);
  if (!Number.isSafeInteger(retry) || retry < 0) {
    throw new RangeError(`createBroker() refused: retry must be a whole number of milliseconds, not ${String(retry)}.`);
  }
  if (publishToken !== undefined && (typeof publishToken !== "string" || publishToken === "")) {
    throw new TypeError(
      "createBroker() refused: publishToken must be a string that is not empty, or everybody could publish.",
    );
  }
  return Object.freeze({ ...settings, engine: settings.engine ?? memoryEngine() });
}

/** Defaults, and over them what was set; `undefined` counts as not set. */
function overlay<T>(kind: string, defaults: object, values: object): T {
  const result: Record<string, unknown> = { ...defaults };
  for (const [name, value] of Object.entries(values)) {
    if (!Object.hasOwn(defaults, name)) throw new TypeError(`createBroker() refused: there is no ${kind} "${name}".`);
    if (value !== undefined) result[name] = value;
  }
  return result as T;
}
