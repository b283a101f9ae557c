import { BrokerError, type ErrorCode, type ErrorStage } from "../base/errors.ts";
import { jitter } from "../base/random.ts";
import { checkKnownKeys } from "../base/validate.ts";
import { type Broker, blockForOf, publishMethods } from "../broker/broker.ts";
import { type BrokerOptions, resolveOptions, type Settings } from "../broker/options.ts";
import type { DeliveryReport, Published, PublishOptions, Reported } from "../delivery/delivery-report.ts";
import type { EventInput } from "../event/event.ts";
import { NameRules } from "../event/name-rules.ts";
import { encode, formatEnd } from "../event/sse-format.ts";
import type { ResolvedGrant } from "../http/authorize.ts";
import { AuthorizeQueue } from "../http/authorize-queue.ts";
import { type BrokerBackend, HttpHandler } from "../http/handler.ts";
import type { StartOptions } from "../log/resume.ts";
import { respondWithHealth } from "../monitoring/health.ts";
import { BROKER_METRICS } from "../monitoring/metric-definitions.ts";
import { respondWithMetrics } from "../monitoring/prometheus.ts";
import type { BrokerStats } from "../monitoring/stats.ts";
import type { Socket, UpgradeResponse } from "./cloudflare.ts";
import { errorOf, type Hello, type Refusal, VERSION } from "./protocol.ts";
import { WorkerStream } from "./worker-stream.ts";

/** What of the options of a broker concerns requests. */
export const FACE_OPTIONS = [
  "authorize",
  "authorizeTimeout",
  "cors",
  "errorHandler",
  "maxBodyBytes",
  "maxChannelsPerClient",
  "maxChannelsPerEvent",
  "maxNameLength",
  "maxPending",
  "onError",
  "paths",
  "publishToken",
  "retry",
] as const;

/**
 * Options of {@link hub}: what concerns requests. What concerns events and clients are options of the object. `authorize`, `cors` and the
 * others are as in `createBroker`.
 */
export interface HubOptions extends Pick<BrokerOptions, (typeof FACE_OPTIONS)[number]> {
  /**
   * Which object of the namespace: a name, or a function that chooses one by the request, for those who shard by room or tenant. Clients
   * of one object share one order and one log; clients of two know nothing of each other. @default "fanwire"
   */
  readonly name?: string | ((request: Request) => string);
  /**
   * Who holds the streams. `bridge`: the Worker does, and the object sleeps while nothing happens. `direct`: the object does, which is faster
   * and billed for as long as anybody is connected. @default "bridge"
   */
  readonly mode?: "bridge" | "direct";
}

/** What can be called on an object; the call travels by RPC. */
interface ObjectStub {
  fetch(url: string, init?: RequestInit): Promise<Response>;
  serve(call: ObjectCall): Promise<ObjectAnswer>;
}

/** A namespace of objects that are {@link BrokerObject}s, as the Worker has it from its bindings. */
export interface ObjectNamespace {
  getByName(name: string): unknown;
}

/** What the Worker asks of the object. */
export type ObjectCall =
  | { readonly type: "secret" }
  | { readonly type: "barred"; readonly clientId: string }
  | {
      readonly type: "publish";
      readonly keys: readonly string[];
      readonly event: EventInput;
      readonly options: PublishOptions;
    }
  | { readonly type: "disconnect"; readonly clientId: string; readonly barFor: number }
  | { readonly type: "check" }
  | { readonly type: "stats" };

/** An error keeps its code only so: of a thrown one RPC passes on the message. */
export type ObjectAnswer =
  | { readonly value: unknown }
  | { readonly refusal: Refusal }
  /** The caller's own: a `TypeError` or `RangeError`. */
  | { readonly mistake: string; readonly ofRange: boolean };

/** A report travels as a function, which may be called once and soon. */
type WithReport = Published & { readonly report?: () => Promise<DeliveryReport> };

/** The broker of a namespace of objects, as a Worker has it. All methods may be called detached. */
export interface Hub
  extends Pick<Broker, "fetch" | "clientHandler" | "eventHandler" | "broadcast" | "broadcastTo" | "disconnect"> {
  /** As `health` of a broker. It asks the object that `name` says, which is a request to it and wakes it. */
  health(request: Request): Promise<Response>;
  /**
   * As `metrics` of a broker, of the object that `name` says. What this isolate counts for itself is left out (pending requests, failures):
   * another one may answer the next time, with counts of its own.
   */
  metrics(request: Request): Promise<Response>;
  /** What the object counts; `pending` and `failures` are of the requests that this isolate answered. */
  stats(): Promise<BrokerStats>;
}

/** Where the Worker addresses an object; nothing on a network answers there. */
const ADDRESS = "https://fanwire.invalid/";
const DEFAULT_NAME = "fanwire";
/** Secrets of objects that a Worker remembers. */
const MOST_SECRETS = 10_000;

/** What all requests of a hub share. */
interface Shared {
  readonly settings: Settings;
  readonly names: NameRules;
  readonly authorizeQueue: AuthorizeQueue;
  readonly failures: Partial<Record<ErrorCode, number>>;
  readonly namespace: ObjectNamespace;
  readonly mode: "bridge" | "direct";
  /** What proves to an object that a request is from here. */
  readonly secrets: Map<string, string>;
}

/**
 * The broker that lives in a namespace of Durable Objects, with the HTTP face of `createBroker`. May be called in a module's scope.
 *
 * @example
 * import { env } from "cloudflare:workers";
 * const broker = hub(env.HUB, { authorize });
 * app.route("/events", sse(broker));
 * await broker.broadcast("to everybody");
 * @throws `RangeError` or `TypeError` for an option that is none.
 */
export function hub(namespace: ObjectNamespace, options: HubOptions = {}): Hub {
  const where = "hub()";
  checkKnownKeys(where, "option", OPTIONS, options);
  const { name = DEFAULT_NAME, mode = "bridge", ...face } = options;
  if (typeof (namespace as ObjectNamespace | undefined)?.getByName !== "function")
    throw new TypeError(
      `${where} refused: there is no namespace of Durable Objects; is its binding in the configuration?`,
    );
  if (typeof name !== "function" && !isName(name))
    throw new TypeError(`${where} refused: name must be a string that is not empty, or a function that gives one.`);
  if (mode !== "bridge" && mode !== "direct")
    throw new TypeError(`${where} refused: mode must be "bridge" or "direct".`);
  const settings = resolveOptions({ ...face, engine: NO_ENGINE }, where);
  const shared: Shared = {
    settings,
    names: new NameRules(settings),
    authorizeQueue: new AuthorizeQueue(settings.maxPending, settings.authorizeTimeout),
    failures: {},
    namespace,
    mode,
    secrets: new Map(),
  };

  const remoteFor = (request: Request): ObjectBackend =>
    new ObjectBackend(shared, () => (typeof name === "function" ? name(request) : name));
  const faceFor = (request: Request): HttpHandler => new HttpHandler(remoteFor(request));
  const remote = (): ObjectBackend => {
    if (typeof name === "function")
      throw new TypeError("Which object is it for? Use hub(namespace, { name: … }), or call the object's stub.");
    return new ObjectBackend(shared, () => name);
  };
  return {
    fetch: (request, context) => faceFor(request).fetch(request, context),
    clientHandler: (request, overrides = {}) => faceFor(request).clientHandler(request, overrides),
    eventHandler: (request, overrides = {}) => faceFor(request).eventHandler(request, overrides),
    health: (request) => respondWithHealth(request, () => remoteFor(request).look({ type: "check" })),
    metrics: (request) => respondWithMetrics(request, BROKER_METRICS, () => remoteFor(request).look({ type: "stats" })),
    ...publishMethods({
      names: shared.names,
      publish: async (keys, event, given) => remote().publish(keys, event, given),
    }),
    disconnect: async (clientId, options) =>
      remote().call({ type: "disconnect", clientId: shared.names.clientId(clientId), barFor: blockForOf(options) }),
    stats: async () => ({
      ...(await remote().call<BrokerStats>({ type: "stats" })),
      pending: shared.authorizeQueue.pending,
      failures: { ...shared.failures },
    }),
  };
}

const OPTIONS = new Set<string>([...FACE_OPTIONS, "name", "mode"]);
const NO_ENGINE = {
  open(): never {
    throw new Error("The log is in the object.");
  },
};
const isName = (name: unknown): name is string => typeof name === "string" && name !== "";

/** The broker behind the face: an object, somewhere else. Made for each request, because no stub outlives one. */
class ObjectBackend implements BrokerBackend {
  readonly settings: Settings;
  readonly names: NameRules;
  readonly authorizeQueue: AuthorizeQueue;
  readonly failures: Shared["failures"];
  readonly #shared: Shared;
  readonly #choose: () => string;

  constructor(shared: Shared, choose: () => string) {
    this.#shared = shared;
    this.settings = shared.settings;
    this.names = shared.names;
    this.authorizeQueue = shared.authorizeQueue;
    this.failures = shared.failures;
    this.#choose = choose;
  }

  /** Chosen when it is needed, so that what the choice throws is answered as an error of the request. */
  #name(): string {
    const name: unknown = this.#choose();
    if (!isName(name)) throw new TypeError("hub() refused: name() gave no string, or one that is empty.");
    return name;
  }

  checkOpen(): void {
    // The object says whether it is.
  }

  reserve(): () => void {
    // Clients are counted where they meet.
    return () => undefined;
  }

  keepOpen(): void {
    // Nothing here cuts a stream that is quiet; and a binding seems to have every method, so none is asked.
  }

  isBarred(clientId: string): Promise<boolean> {
    return this.call({ type: "barred", clientId });
  }

  /** As `call`, for who watches the object and is told nothing of the inside. */
  async look<T>(call: ObjectCall): Promise<T> {
    try {
      return await this.call(call);
    } catch (error) {
      if (!(error instanceof BrokerError)) void this.reportError("request", error);
      throw error;
    }
  }

  async publish(keys: readonly string[], event: EventInput, options: PublishOptions): Promise<Published> {
    const { report, ...published } = await this.call<WithReport>({ type: "publish", keys, event, options });
    if (!report) return published;
    // A report never rejects; of an object that is lost nobody knows whom it reached.
    const reported: Reported = { ...published, report: report().catch(() => ({ sent: 0, failed: [] })) };
    return reported;
  }

  async connect(
    request: Request,
    grant: ResolvedGrant,
    clientId: string,
    start: StartOptions,
  ): Promise<ReadableStream<Uint8Array> | undefined> {
    const hello: Hello = { version: VERSION, kind: "hello", grant, clientId, start, url: request.url };
    if (this.#shared.mode === "bridge") return WorkerStream.open(request, hello, () => this.#dial());
    const response = await this.#ask({
      method: "POST",
      body: JSON.stringify(hello),
      signal: request.signal,
    });
    if (response.ok && response.body) return response.body;
    const refusal = (await response.json()) as Refusal;
    if (refusal.code === undefined) return undefined;
    throw errorOf(refusal);
  }

  async call<T>(call: ObjectCall): Promise<T> {
    const name = this.#name();
    let answer: ObjectAnswer;
    try {
      answer = await this.#stub(name).serve(call);
    } catch (cause) {
      if ((cause as Error | undefined)?.name === "DataCloneError")
        throw new TypeError(`The object cannot be told of it: ${String(cause)}`);
      // Of an overloaded object the platform says that it was not asked; and what publishes nothing can be asked again.
      throw call.type !== "publish" || (cause as { overloaded?: boolean }).overloaded === true
        ? new BrokerError("engine-down", "Refused: the object is not available.", { cause })
        : new BrokerError("publish-outcome-unknown", "The object was lost before it answered.", { cause });
    }
    if ("refusal" in answer) throw errorOf(answer.refusal);
    if ("mistake" in answer) throw answer.ofRange ? new RangeError(answer.mistake) : new TypeError(answer.mistake);
    return answer.value as T;
  }

  endEvent(reason: string, reconnect: boolean): Uint8Array<ArrayBuffer> {
    return encode(formatEnd(reason, reconnect, jitter(this.settings.retry)));
  }

  async reportError(stage: ErrorStage, error: unknown): Promise<void> {
    await undefined;
    try {
      await this.settings.onError?.({ error, stage });
    } catch {
      // onError is where errors end.
    }
  }

  #stub(name: string): ObjectStub {
    return this.#shared.namespace.getByName(name) as ObjectStub;
  }

  async #dial(): Promise<Socket> {
    const { webSocket } = (await this.#ask({ headers: { upgrade: "websocket" } })) as UpgradeResponse;
    if (!webSocket) throw new BrokerError("engine-down", "Connection refused: the object takes no sockets.");
    // What comes is bytes, and not a Blob, whatever the compatibility date says.
    webSocket.binaryType = "arraybuffer";
    return webSocket;
  }

  /** Asks the object by `fetch`, with what proves that it is no visitor whose request was passed on. */
  async #ask(init: RequestInit): Promise<Response> {
    const name = this.#name();
    const { secrets } = this.#shared;
    for (let isKnown = secrets.has(name); ; isKnown = false) {
      const secret = isKnown ? secrets.get(name) : await this.call<string>({ type: "secret" });
      if (secrets.size >= MOST_SECRETS) secrets.clear();
      secrets.set(name, secret as string);
      let response: Response;
      try {
        response = await this.#stub(name).fetch(ADDRESS, {
          ...init,
          headers: { ...(init.headers as Record<string, string>), authorization: `Bearer ${secret}` },
        });
      } catch (cause) {
        throw new BrokerError("engine-down", "Connection refused: the object is not available.", { cause });
      }
      // An object that was empty began anew, with another secret.
      if (response.status !== 401 || !isKnown) return response;
      // What is not read would keep the object busy.
      await response.body?.cancel();
    }
  }
}

/** Options of {@link worker}. */
export interface WorkerOptions extends HubOptions {
  /** The name of the binding of the namespace, as in the configuration. */
  readonly binding: string;
}

/**
 * A Worker that is the broker of a namespace of objects. Options that are secrets come from the Worker's environment: give a function of it.
 * `authorize` is given the environment as `context`.
 *
 * @example
 * export class Hub extends BrokerObject {}
 * export default worker(({ PUBLISH_TOKEN }) => ({ binding: "HUB", publishToken: PUBLISH_TOKEN }));
 */
export function worker<E extends object = Record<string, never>>(
  options: WorkerOptions | ((env: E) => WorkerOptions),
): { fetch(request: Request, env: E): Promise<Response> } {
  const hubs = new WeakMap<object, Hub>();
  const make = (env: E): Hub => {
    const { binding, ...rest } = typeof options === "function" ? options(env) : options;
    const made = hub((env as Record<string, ObjectNamespace>)[binding] as ObjectNamespace, rest);
    hubs.set(env, made);
    return made;
  };
  return { fetch: (request, env) => (hubs.get(env) ?? make(env)).fetch(request, env) };
}
