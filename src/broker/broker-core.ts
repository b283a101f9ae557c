// The broker behind its HTTP handler. Opens the engine at the first use, because a Workers module may do nothing in its scope.

import { ErrorReporter } from "../base/error-reporter.ts";
import { BrokerError, type ErrorCode, type ErrorStage } from "../base/errors.ts";
import { extendIdleTimeout } from "../base/runtime.ts";
import { checkNumbers } from "../base/validate.ts";
import type { Connection } from "../delivery/connection.ts";
import { ControlEvents } from "../delivery/control-events.ts";
import type { Published, PublishOptions, Reported, Sent } from "../delivery/delivery-report.ts";
import type { FlushTiming } from "../delivery/flush-scheduler.ts";
import type { Listener } from "../delivery/listener.ts";
import type { EngineSession, StreamAnswer, StreamRequest } from "../engine/engine.ts";
import { type History, readHistory } from "../engine/history.ts";
import { type EventInput, prepareEvent } from "../event/event.ts";
import { NameRules } from "../event/name-rules.ts";
import type { ResolvedGrant } from "../http/authorize.ts";
import { AuthorizeQueue } from "../http/authorize-queue.ts";
import type { BrokerBackend } from "../http/handler.ts";
import type { StartOptions } from "../log/resume.ts";
import type { BrokerStats } from "../monitoring/stats.ts";
import { ConnectionLimits } from "./connection-limits.ts";
import type { Settings } from "./options.ts";
import { type BrokerContext, RunningBroker } from "./running-broker.ts";
import { type Force, shutDown } from "./shutdown.ts";

/** The longest time that `close({ spreadOver })` takes, in milliseconds: an hour. */
const MAX_SPREAD_MS = 3_600_000;
const NO_CONNECTIONS: ReadonlySet<Connection> = new Set();

/** Checked options of `disconnect`. */
export interface Disconnection {
  /** Milliseconds for which the id is barred. */
  readonly blockFor: number;
  /** The application's reason. */
  readonly reason?: string | undefined;
}

export class BrokerCore implements BrokerBackend, BrokerContext {
  readonly settings: Settings;
  readonly names: NameRules;
  readonly authorizeQueue: AuthorizeQueue;
  readonly limits: ConnectionLimits;
  readonly errors: ErrorReporter;
  readonly timing: FlushTiming | undefined;
  /** Requests that were refused or failed, by code. */
  readonly failures: Partial<Record<ErrorCode, number>> = {};
  readonly #controlEvents: ControlEvents;
  #running: RunningBroker | undefined;
  #closing: Promise<void> | undefined;
  readonly #force: Force = {};
  readonly onClose: Set<() => Promise<void>> = new Set<() => Promise<void>>();

  constructor(settings: Settings, timing?: FlushTiming) {
    this.settings = settings;
    this.timing = timing;
    this.names = new NameRules(settings);
    this.authorizeQueue = new AuthorizeQueue(settings.maxPending, settings.authorizeTimeout);
    this.limits = new ConnectionLimits(settings);
    this.errors = new ErrorReporter(settings.onError);
    this.#controlEvents = new ControlEvents(settings);
  }

  /** Opens the engine if it is not open. */
  open(): RunningBroker {
    return (this.#running ??= new RunningBroker(this));
  }

  openSession(): EngineSession {
    return this.open().fanout.session;
  }

  engineState(): "up" | "down" {
    return this.open().fanout.session.state ?? "up";
  }

  get isClosed(): boolean {
    return this.#closing !== undefined;
  }

  checkOpen(): void {
    if (this.isClosed) throw new BrokerError("closed", "Request refused: the broker is closing; try again later.");
  }

  reserve(): (() => void) | undefined {
    return this.limits.reserve();
  }

  keepOpen(request: Request, context: unknown): void {
    const { heartbeat, timeout, tolerance } = this.settings;
    // Long enough for the broker's own timeout to come first, and short enough that the runtime still closes a dead socket.
    extendIdleTimeout(context, request, Math.max(3 * heartbeat, timeout * Math.max(1, tolerance) + heartbeat));
  }

  isBarred(clientId: string): boolean | Promise<boolean> {
    // Does not open the engine: the question comes from requests that register no connection.
    return this.#running?.registry.knownClients.isBarredAnywhere(clientId) ?? false;
  }

  connect(
    request: Request,
    grant: ResolvedGrant,
    clientId: string,
    start: StartOptions,
    releaseSlot: () => void,
  ): Promise<ReadableStream<Uint8Array> | undefined> {
    return this.open().registry.connect(request, grant, clientId, start, releaseSlot);
  }

  checkEvent(event: EventInput): void {
    prepareEvent(event, this.settings);
  }

  async publish(
    keys: readonly string[],
    event: EventInput,
    options: PublishOptions = {},
  ): Promise<Sent | Published | Reported> {
    this.checkOpen();
    const { recipient, connectionId } = options;
    if (connectionId === undefined) return this.open().publisher.publish(keys, event, options);
    const text = prepareEvent(event, this.settings);
    const { clients } = await this.requestStreams({ type: "send", clientId: recipient, connectionId, text });
    if (clients === 0) throw new BrokerError("unknown-client", "Event refused: the client has no such connection.");
    return { clients };
  }

  /**
   * Carries out a request about open streams in all processes.
   *
   * @throws {@link BrokerError} `closed`, `bad-channel`, `at-capacity`, `engine-down`, `engine-refused`
   */
  async requestStreams(request: StreamRequest): Promise<StreamAnswer> {
    this.checkOpen();
    const { registry, fanout } = this.open();
    const { presence } = fanout.session;
    const carriedOut = registry.requests.run(request);
    const here = "clients" in carriedOut ? carriedOut : await carriedOut;
    const isFound = here.clients > 0 && (request.secret ?? request.connectionId) !== undefined;
    if (!presence || isFound) return here;
    if (!presence.request)
      throw new BrokerError("engine-refused", "Refused: this engine cannot reach the streams of other processes.");
    const others = await presence.request(request);
    const all = [here, ...others];
    const clients = all.reduce((sum, answer) => sum + answer.clients, 0);
    const newest = others.reduce((a, b) => ((b.position?.seq ?? 0) > (a.position?.seq ?? 0) ? b : a), here);
    return { clients, ...(newest.position ? { position: newest.position } : {}) };
  }

  async history(keys: readonly string[], start: StartOptions, limit: number, signal?: AbortSignal): Promise<History> {
    this.checkOpen();
    return readHistory(this.open().fanout.session, keys, start, limit, signal);
  }

  listen(keys: readonly string[], start: StartOptions, signal: AbortSignal | undefined): Listener {
    this.checkOpen();
    return this.open().listen(keys, start, signal);
  }

  disconnect(clientId: string, { blockFor, reason }: Disconnection): number | Promise<number> {
    checkNumbers("disconnect()", { blockFor }, 0);
    return this.open().registry.disconnect(clientId, blockFor, reason);
  }

  /** The connections of this process. */
  get connections(): ReadonlySet<Connection> {
    return this.#running?.registry.connections ?? NO_CONNECTIONS;
  }

  stats(): BrokerStats {
    const { connections } = this;
    const { fanout, registry, publisher } = this.#running ?? {};
    const session = fanout?.session;
    const log = session?.log;
    return {
      clients: connections.size,
      ids: new Set(Array.from(connections, ({ id }) => id)).size,
      blocked: registry?.timeouts.blocked.size ?? 0,
      closing: registry?.timeouts.closing.size ?? 0,
      pending: this.authorizeQueue.pending,
      channels: fanout?.channels.size ?? 0,
      published: publisher?.published ?? 0,
      sent: fanout?.sentEvents ?? 0,
      bytes: fanout?.sentBytes ?? 0,
      replayed: fanout?.replayedEvents ?? 0,
      gaps: fanout?.sentGaps ?? 0,
      overruns: fanout?.overruns ?? 0,
      disconnects: { ...registry?.disconnects },
      failures: { ...this.failures },
      engine: session && !this.isClosed ? (session.state ?? "up") : "idle",
      log: { events: log?.size ?? 0, bytes: log?.bytes ?? 0, channels: log?.channels ?? 0 },
    };
  }

  endEvent(reason: ErrorCode | "closing", reconnect: boolean, retry: number): Uint8Array<ArrayBuffer> {
    return this.#controlEvents.end(reason, reconnect, { retry });
  }

  reportError(stage: ErrorStage, error: unknown): Promise<void> {
    return this.errors.report(stage, error);
  }

  close(force: boolean, spreadOver = 0): Promise<void> {
    checkNumbers("close()", { spreadOver }, 0);
    if (force) {
      this.#force.isOn = true;
      this.#force.endWait?.();
    }
    return (this.#closing ??= this.#close(Math.min(spreadOver, MAX_SPREAD_MS)));
  }

  async #close(spreadOver: number): Promise<void> {
    // A turn at least, so that `isClosed` holds before anything ends.
    await undefined;
    await Promise.all(Array.from(this.onClose, (close) => close()));
    if (this.#running) await shutDown(this.#running, spreadOver, this.#force);
    this.authorizeQueue.close();
  }
}
