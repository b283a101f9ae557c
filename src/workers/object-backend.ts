// The broker behind a Worker's HTTP handler: an object elsewhere, reached by RPC, `fetch` and a WebSocket. Also the types of that RPC.

import type { ErrorReporter } from "../base/error-reporter.ts";
import { BrokerError, type ErrorCode, type ErrorStage } from "../base/errors.ts";
import type { Disconnection } from "../broker/broker-core.ts";
import type { Settings } from "../broker/options.ts";
import type { DeliveryReport, PublishOptions, Reported, Sent } from "../delivery/delivery-report.ts";
import type { StreamAnswer, StreamRequest } from "../engine/engine.ts";
import type { History } from "../engine/history.ts";
import type { EventInput } from "../event/event.ts";
import type { NameRules } from "../event/name-rules.ts";
import { encode, formatEnd } from "../event/sse-format.ts";
import type { ResolvedGrant } from "../http/authorize.ts";
import type { AuthorizeQueue } from "../http/authorize-queue.ts";
import type { BrokerBackend } from "../http/handler.ts";
import { withValue } from "../log/listened.ts";
import type { StartOptions } from "../log/resume.ts";
import type { Socket, UpgradeResponse } from "./cloudflare.ts";
import { errorOf, type Hello, type Refusal, VERSION } from "./protocol.ts";
import { WorkerStream } from "./worker-stream.ts";

/** A request of the Worker to the object, sent by RPC. */
export type RpcRequest =
  | { readonly type: "secret" }
  | { readonly type: "barred"; readonly clientId: string }
  | {
      readonly type: "publish";
      readonly keys: readonly string[];
      readonly event: EventInput;
      readonly options: PublishOptions;
    }
  | {
      readonly type: "history";
      readonly keys: readonly string[];
      readonly start: StartOptions;
      readonly limit: number;
    }
  | ({ readonly type: "disconnect"; readonly clientId: string } & Disconnection)
  | { readonly type: "streams"; readonly request: StreamRequest }
  | { readonly type: "check" }
  | { readonly type: "stats" };

/** The object's answer. Errors are values, because RPC keeps only the message of an error that is thrown. */
export type RpcResult =
  | { readonly value: unknown }
  | { readonly refusal: Refusal }
  /** A `TypeError` or `RangeError` that the caller caused. */
  | { readonly argumentError: string; readonly isRangeError: boolean };

/** The methods of an object's stub that a Worker uses. */
interface ObjectStub {
  fetch(url: string, init?: RequestInit): Promise<Response>;
  serve(request: RpcRequest): Promise<RpcResult>;
}

/** A namespace of {@link BrokerObject}s: a binding of the Worker. */
export interface ObjectNamespace {
  getByName(name: string): unknown;
}

/** A report is sent as a function that the Worker may call once, soon after the answer. */
type WithReport = Sent & { readonly report?: () => Promise<DeliveryReport> };

/** The URL that requests to an object carry. The stub ignores it, and the domain can never exist (RFC 2606, section 2). */
const OBJECT_URL = "https://fanwire.invalid/";
/** The most secrets of objects that a Worker keeps. */
const MAX_SECRETS = 10_000;

/** The parts of a hub that all of its requests share. */
export interface HubContext {
  readonly settings: Settings;
  readonly names: NameRules;
  readonly authorizeQueue: AuthorizeQueue;
  readonly failures: Partial<Record<ErrorCode, number>>;
  readonly errors: ErrorReporter;
  readonly namespace: ObjectNamespace;
  readonly mode: "bridge" | "direct";
  /** Secrets by the name of the object. With its secret the Worker proves to an object that a request comes from here. */
  readonly secrets: Map<string, string>;
}

/** Whether a value can be the name of an object. */
export const isObjectName = (name: unknown): name is string => typeof name === "string" && name !== "";

/** The object that serves one request. Created for each request, because a stub must not be used by another request. */
export class ObjectBackend implements BrokerBackend {
  readonly settings: Settings;
  readonly names: NameRules;
  readonly authorizeQueue: AuthorizeQueue;
  readonly failures: HubContext["failures"];
  readonly #context: HubContext;
  readonly #chooseName: () => string;

  constructor(context: HubContext, chooseName: () => string) {
    this.#context = context;
    this.settings = context.settings;
    this.names = context.names;
    this.authorizeQueue = context.authorizeQueue;
    this.failures = context.failures;
    this.#chooseName = chooseName;
  }

  /** Returns the name of the object. Chooses it here and not in the constructor, so that an error of `name()` is an error of the request. */
  #name(): string {
    const name: unknown = this.#chooseName();
    if (!isObjectName(name)) throw new TypeError("hub() refused: name() must return a string that is not empty.");
    return name;
  }

  checkOpen(): void {
    // The object checks this itself.
  }

  reserve(): () => void {
    // The object counts its connections.
    return () => undefined;
  }

  keepOpen(): void {
    // Workers do not cut quiet streams. The context is not asked, because a binding seems to have every method.
  }

  isBarred(clientId: string): Promise<boolean> {
    return this.call({ type: "barred", clientId });
  }

  /** Calls the object for a monitor. Reports an unexpected error, because the monitor does not receive its text. */
  async callAndReport<T>(request: RpcRequest): Promise<T> {
    try {
      return await this.call(request);
    } catch (error) {
      if (!(error instanceof BrokerError)) void this.reportError("request", error);
      throw error;
    }
  }

  async publish(keys: readonly string[], event: EventInput, options: PublishOptions): Promise<Sent> {
    const { report, ...published } = await this.call<WithReport>({ type: "publish", keys, event, options });
    if (!report) return published;
    // A report never rejects. If the object is lost, nobody knows which clients received the event.
    const reported: Sent & Pick<Reported, "report"> = {
      ...published,
      report: report().catch(() => ({ sent: 0, failed: [] })),
    };
    return reported;
  }

  requestStreams(request: StreamRequest): Promise<StreamAnswer> {
    return this.call({ type: "streams", request });
  }

  async history(keys: readonly string[], start: StartOptions, limit: number): Promise<History> {
    const history = await this.call<History>({ type: "history", keys, start, limit });
    // RPC sends enumerable members only.
    history.events.forEach(withValue);
    return history;
  }

  async connect(
    request: Request,
    grant: ResolvedGrant,
    clientId: string,
    start: StartOptions,
  ): Promise<ReadableStream<Uint8Array> | undefined> {
    const hello: Hello = { version: VERSION, kind: "hello", grant, clientId, start, url: request.url };
    if (this.#context.mode === "bridge") return WorkerStream.open(request, hello, () => this.#dial());
    const response = await this.#fetch({
      method: "POST",
      body: JSON.stringify(hello),
      signal: request.signal,
    });
    if (response.ok && response.body) return response.body;
    const refusal = (await response.json()) as Refusal;
    if (refusal.code === undefined) return undefined;
    throw errorOf(refusal);
  }

  /**
   * Calls the object by RPC.
   *
   * @throws {@link BrokerError} as the object does; `engine-down` if it did nothing, `publish-outcome-unknown` if it may have published
   */
  async call<T>(request: RpcRequest): Promise<T> {
    const name = this.#name();
    let result: RpcResult;
    try {
      result = await this.#stub(name).serve(request);
    } catch (cause) {
      if ((cause as Error | undefined)?.name === "DataCloneError")
        throw new TypeError(`Call refused: its arguments cannot be sent to the object: ${String(cause)}`);
      // An overloaded object did not run the call, and a call that publishes nothing may be repeated.
      throw request.type !== "publish" || (cause as { overloaded?: boolean }).overloaded === true
        ? new BrokerError("engine-down", "Refused: the object is not available; try again later.", { cause })
        : new BrokerError(
            "publish-outcome-unknown",
            "Event may be published or not: the object was lost before it answered.",
            {
              cause,
            },
          );
    }
    if ("refusal" in result) throw errorOf(result.refusal);
    if ("argumentError" in result) {
      const { argumentError, isRangeError } = result;
      throw isRangeError ? new RangeError(argumentError) : new TypeError(argumentError);
    }
    return result.value as T;
  }

  endEvent(reason: string, reconnect: boolean, retry: number): Uint8Array<ArrayBuffer> {
    return encode(formatEnd(reason, reconnect, retry));
  }

  reportError(stage: ErrorStage, error: unknown): Promise<void> {
    return this.#context.errors.report(stage, error);
  }

  #stub(name: string): ObjectStub {
    return this.#context.namespace.getByName(name) as ObjectStub;
  }

  async #dial(): Promise<Socket> {
    const { webSocket } = (await this.#fetch({ headers: { upgrade: "websocket" } })) as UpgradeResponse;
    if (!webSocket) throw new BrokerError("engine-down", "Connection refused: the object did not open a socket.");
    // Messages are bytes and not a Blob, at every compatibility date.
    webSocket.binaryType = "arraybuffer";
    return webSocket;
  }

  /** Sends a request to the object, with its secret: an object may also be reached by a visitor's request that a Worker passed on. */
  async #fetch(init: RequestInit): Promise<Response> {
    const name = this.#name();
    const { secrets } = this.#context;
    for (let isCached = secrets.has(name); ; isCached = false) {
      const secret = isCached ? secrets.get(name) : await this.call<string>({ type: "secret" });
      if (secrets.size >= MAX_SECRETS) secrets.clear();
      secrets.set(name, secret as string);
      let response: Response;
      try {
        response = await this.#stub(name).fetch(OBJECT_URL, {
          ...init,
          headers: { ...(init.headers as Record<string, string>), authorization: `Bearer ${secret}` },
        });
      } catch (cause) {
        throw new BrokerError("engine-down", "Connection refused: the object is not available.", { cause });
      }
      // An object that was emptied has another secret since.
      if (response.status !== 401 || !isCached) return response;
      // An unread body would keep the object busy.
      await response.body?.cancel();
    }
  }
}
