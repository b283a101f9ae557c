import { BrokerError, type ErrorCode } from "../base/errors.ts";
import { randomName } from "../base/random.ts";
import { after, extendIdleTimeout, now } from "../base/runtime.ts";
import { departureOf, type TimeoutQueue, watch } from "../base/timeout-queue.ts";
import { checkNumbers } from "../base/validate.ts";
import { bindLifetime } from "../delivery/connection-lifetime.ts";
import { ControlEvents } from "../delivery/control-events.ts";
import { DeliveryReports, type Published, type PublishOptions, type Reported } from "../delivery/delivery-report.ts";
import { Fanout } from "../delivery/fanout.ts";
import type { FlushTiming } from "../delivery/flush-scheduler.ts";
import { Heartbeat } from "../delivery/heartbeat.ts";
import { Listener, type ListenerHost } from "../delivery/listener.ts";
import {
  type ClientInfo,
  type Connection,
  type ConnectionHost,
  type DisconnectReason,
  StreamConnection,
} from "../delivery/stream-connection.ts";
import type { AppendResult, EngineSession } from "../engine/engine.ts";
import { inboxKey, keysOfClient, NameRules } from "../event/channel-key.ts";
import { type EventInput, prepareEvent } from "../event/event.ts";
import { formatPosition } from "../event/position.ts";
import { AuthorizeQueue, type ResolvedGrant } from "../http/authorize.ts";
import { type HistoryBounds, remoteHistoryBounds, resolveResumePoint, type StartOptions } from "../log/resume.ts";
import type { PeerCommand, Presence, PresenceResult } from "../shared-log/shared-log.ts";
import { ConnectionLimits } from "./connection-limits.ts";
import { KnownClients } from "./known-clients.ts";
import type { ErrorStage, Settings } from "./options.ts";

const OVERRUN = "Publishing overran the log: more was published at once than logBytes holds.";
/** Streams that `close({ over })` ends one after another are at least so many milliseconds apart. */
const LEAVING_STEP = 10;
/** The longest that ends are spread over, an hour. */
const LONGEST_CLOSE = 3_600_000;
/** A day: a native EventSource whose place another connection took is not to take it back. */
export const NOT_SOON = 86_400_000;

/** Who comes. */
interface Arrival {
  readonly request: Request;
  readonly subject?: string | undefined;
  readonly clientId: string;
  readonly channels: readonly string[];
  readonly start: StartOptions;
  /** When it connected first (epoch milliseconds), if its stream goes on: it is told nothing but what it has missed. */
  readonly since?: number | undefined;
}

/** The broker without its HTTP face: who is connected, and how an event gets to them. */
export class Core implements ConnectionHost {
  readonly settings: Settings;
  readonly fanout: Fanout;
  readonly heartbeat: Heartbeat<StreamConnection>;
  readonly controlEvents: ControlEvents;
  readonly stalled: TimeoutQueue<Connection>;
  readonly starting: TimeoutQueue<StreamConnection>;
  readonly closing: TimeoutQueue<Connection>;
  readonly clients: Set<Connection> = new Set();
  readonly names: NameRules;
  readonly authorizeQueue: AuthorizeQueue;
  readonly #capacity: ConnectionLimits;
  readonly knownClients: KnownClients;
  readonly #reports: DeliveryReports;
  readonly disconnects: Partial<Record<DisconnectReason, number>> = {};
  /** Requests that were not answered as they wished. */
  readonly failures: Partial<Record<ErrorCode, number>> = {};
  published = 0;
  session: EngineSession | undefined;
  #connections = 0;
  #prefix = "";
  #closing: Promise<void> | undefined;
  /** What the engine was asked to append and has not answered. */
  readonly #appends = new Set<Promise<unknown>>();
  /** When each was made known to other processes, where those are. */
  readonly #entered = new WeakMap<Connection, number>();
  /** Streams that were told to end and have not. */
  readonly #departures = new Set<Promise<unknown>>();

  constructor(settings: Settings, rhythm?: FlushTiming) {
    this.settings = settings;
    this.names = new NameRules(settings);
    this.#capacity = new ConnectionLimits(settings, () => this.clients.size + this.closing.size);
    this.authorizeQueue = new AuthorizeQueue(settings.maxPending, settings.authorizeTimeout);
    this.knownClients = new KnownClients(settings);
    this.fanout = new Fanout(
      {
        onAppended: (entry) => this.#reports.onAppended(entry),
        onOverrun: () => void this.reportError("overrun", new Error(OVERRUN)),
        onCommand: (order) => this.#obey(order),
        onError: (error) => this.#failed(error),
      },
      rhythm,
    );
    this.#reports = new DeliveryReports(this.fanout, settings.timeout);
    this.heartbeat = new Heartbeat(settings.heartbeat, (client) => client.sendHeartbeat());
    this.controlEvents = new ControlEvents(settings, this.fanout, this.heartbeat);
    ({
      stalled: this.stalled,
      starting: this.starting,
      closing: this.closing,
    } = watch(settings.timeout, settings.tolerance));
  }

  reserve(): (() => void) | undefined {
    return this.#capacity.reserve();
  }

  keepOpen(request: Request, context: unknown): void {
    const { heartbeat, timeout, tolerance } = this.settings;
    // Long enough for the broker's own rule to come first, and short enough that a dead socket is still closed.
    extendIdleTimeout(context, request, Math.max(3 * heartbeat, timeout * Math.max(1, tolerance) + heartbeat));
  }

  isBarred(clientId: string): boolean | Promise<boolean> {
    return this.knownClients.isBarredAnywhere(clientId);
  }

  /** At the first use and not before: a module's scope may do nothing on Workers. */
  open(): EngineSession {
    if (this.session) return this.session;
    this.#prefix = randomName(8);
    const session = this.settings.engine.open(this.fanout);
    this.fanout.open(session);
    this.knownClients.open(session);
    this.session = session;
    return session;
  }

  get isClosed(): boolean {
    return this.#closing !== undefined;
  }

  /** @throws {@link BrokerError} `closed` */
  checkOpen(): void {
    if (this.isClosed) throw new BrokerError("closed", "Refused: the broker is closing.");
  }

  /**
   * Registers a client; `undefined` for one that is turned away. `place` is given back when it has one of its own.
   *
   * @throws {@link BrokerError} `closed`, `client-left` if it left before it was registered, `duplicate-id`, `at-capacity`.
   */
  async connect(
    request: Request,
    { subject, channels, expiresAt }: ResolvedGrant,
    clientId: string,
    start: StartOptions,
    place: () => void,
  ): Promise<ReadableStream<Uint8Array> | undefined> {
    const { settings, heartbeat } = this;
    const client = await this.register({ request, subject, channels, clientId, start }, place, (info, keys) => {
      const client = new StreamConnection(this, info, keys);
      bindLifetime(client, request, expiresAt, settings.maxAge, () => this.#dismiss(client, "max-age", true));
      heartbeat.add(client);
      return client;
    });
    return client?.stream();
  }

  /**
   * Registers a connection that `make` makes; `undefined` for one that is turned away.
   *
   * @throws as {@link connect}
   */
  async register<M extends Connection>(
    { request, subject, channels, clientId, start, since }: Arrival,
    place: () => void,
    make: (info: ClientInfo, keys: readonly string[]) => M,
  ): Promise<M | undefined> {
    const { settings, knownClients } = this;
    const session = this.open();
    const keys = keysOfClient(clientId, channels);
    const presence = { clientId, subject };
    let entered: PresenceResult | undefined;
    let survey: HistoryBounds | undefined;
    const subscribed = session.subscribe?.(keys);
    // No turn is lost where there is nothing to wait for: what is published right after the call is for this client too.
    if (subscribed !== undefined) await subscribed;
    try {
      const entering = knownClients.enter(presence);
      if (entering !== undefined) entered = await entering;
      const surveying = remoteHistoryBounds(session, keys, start, settings.maxReplay);
      if (surveying !== undefined) survey = await surveying;
      this.checkOpen();
      if (request.signal.aborted) throw new BrokerError("client-left", "Connection refused: the client has left.");
      if (survey && survey.epoch !== session.log.epoch)
        throw new BrokerError("engine-down", "Connection refused: the log began anew meanwhile.");
      if (entered === "barred" || knownClients.isBarred(clientId)) {
        this.#turnBack(keys, presence, entered);
        return undefined;
      }
      const sharing = this.fanout.connectionsOf([inboxKey(clientId)]);
      for (const client of this.#capacity.makeRoom(clientId, subject, sharing, since))
        this.#dismiss(client, "replaced", false, NOT_SOON);
    } catch (error) {
      this.#turnBack(keys, presence, entered);
      throw error;
    }

    const info: ClientInfo = Object.freeze({
      clientId,
      connectionId: `${this.#prefix}-${++this.#connections}`,
      ...(subject === undefined ? {} : { subject }),
      channels: Object.freeze(channels),
      connectedAt: since ?? Date.now(),
    });
    const client = make(info, keys);
    if (typeof entered === "number") this.#entered.set(client, entered);
    const landing = resolveResumePoint(session.log, client.channels, start, settings.maxReplay, survey);
    client.startAt(landing, this.controlEvents.opening(client, landing, since !== undefined));
    place();
    this.enroll(client);
    void this.#hook("on-connect", settings.onConnect, { client: info, request });
    return client;
  }

  #turnBack(keys: readonly string[], presence: Presence, entered: PresenceResult | undefined): void {
    this.session?.unsubscribe?.(keys);
    if (entered !== undefined && entered !== "barred") this.knownClients.revoke(presence);
  }

  /** Counts a connection in, until it is over. */
  enroll(client: Connection): void {
    const { subject } = client.info;
    const { release } = client;
    this.clients.add(client);
    this.#capacity.count(subject, 1);
    client.release = () => {
      this.#capacity.count(subject, -1);
      release?.();
    };
  }

  #failed(error: unknown): void {
    // That it is away `stats()` says, and the engine has said why; whatever is tried meanwhile says no more.
    if (!(error instanceof BrokerError && error.code === "engine-down")) void this.reportError("engine", error);
  }

  /** Ends a client with a word, without what it has not read. */
  #dismiss(client: Connection, reason: DisconnectReason, reconnect: boolean, retry?: number): void {
    void track(this.#departures, client.close(reason, this.controlEvents.end(reason, reconnect, retry), false));
  }

  heartbeatFor(client: StreamConnection): Uint8Array<ArrayBuffer> {
    return this.controlEvents.pulse(client);
  }

  endEvent(reason: DisconnectReason | ErrorCode, reconnect: boolean): Uint8Array<ArrayBuffer> {
    return this.controlEvents.end(reason, reconnect);
  }

  unsubscribe(client: Connection): void {
    if (this.fanout.unsubscribe(client)) this.session?.unsubscribe?.(client.channels.map(({ key }) => key));
  }

  remove(client: Connection, reason: DisconnectReason): void {
    this.clients.delete(client);
    this.knownClients.removed({ clientId: client.id, subject: client.info.subject });
    if (client instanceof StreamConnection) this.heartbeat.delete(client);
    this.stalled.delete(client);
    this.disconnects[reason] = (this.disconnects[reason] ?? 0) + 1;
    // Not from here: a flush may be going on, and what the hook does would come in between.
    queueMicrotask(() => void this.#hook("on-disconnect", this.settings.onDisconnect, { client: client.info, reason }));
  }

  /**
   * Appends an event; what is returned resolves when the publisher may go on.
   *
   * @throws {@link BrokerError} `unknown-client` if nobody of the recipient's id is connected, or was within `inboxLinger`.
   */
  async publish(
    keys: readonly string[],
    event: EventInput,
    { report, idempotencyKey, recipient }: PublishOptions = {},
  ): Promise<Published | Reported> {
    this.checkOpen();
    const session = this.open();
    if (recipient !== undefined)
      this.knownClients.check(recipient, this.fanout.countConnections([inboxKey(recipient)]) > 0);
    const text = prepareEvent(event, this.settings);
    const answered = report ? this.#reports.expect(keys) : undefined;
    let position: AppendResult;
    try {
      const answer = session.append(keys, text, idempotencyKey, recipient);
      position = "seq" in answer ? answer : await track(this.#appends, answer);
    } catch (error) {
      answered?.();
      throw error;
    }
    if (!position.repeated) this.published++;
    const watch = answered?.(position);
    const id = formatPosition(position.epoch, position.seq);
    const published = { id, clients: watch?.clients ?? this.fanout.countConnections(keys) };
    const ready = this.fanout.ready();
    if (ready !== undefined) await ready;
    return watch ? { ...published, report: watch.done } : published;
  }

  listen(keys: readonly string[], start: StartOptions, signal: AbortSignal | undefined): Listener {
    this.checkOpen();
    const { fanout } = this;
    const session = this.open();
    const home: ListenerHost = {
      fanout,
      session,
      resolveResumePoint: (joined, survey) => resolveResumePoint(session.log, joined, start, {}, survey),
      historyBounds: () => remoteHistoryBounds(session, keys, start, {}),
      isClosed: () => this.isClosed,
    };
    return new Listener(home, keys, signal);
  }

  disconnect(id: string, barFor: number): number | Promise<number> {
    checkNumbers("disconnect()", { for: barFor }, 0);
    this.open();
    this.knownClients.bar(id, barFor);
    const clients = this.fanout.connectionsOf([inboxKey(id)]);
    for (const client of clients) this.#dismiss(client, "disconnected", barFor <= 0);
    const elsewhere = this.knownClients.disconnect(id, barFor);
    return typeof elsewhere === "number" ? clients.size + elsewhere : elsewhere.then((others) => clients.size + others);
  }

  /** Does what another process asks for, to those who were there when it did. */
  #obey({ type: what, clientId, subject, barFor, at = Infinity }: PeerCommand): void {
    const isOver = what === "disconnect";
    if (isOver) this.knownClients.bar(clientId, barFor);
    for (const client of this.fanout.connectionsOf([inboxKey(clientId)])) {
      if ((this.#entered.get(client) ?? 0) > at) continue;
      if (isOver) this.#dismiss(client, "disconnected", barFor <= 0);
      else if (client.info.subject === subject) this.#dismiss(client, "replaced", false, NOT_SOON);
    }
  }

  close(over: number): Promise<void> {
    checkNumbers("close()", { over }, 0);
    return (this.#closing ??= this.#close(Math.min(over, LONGEST_CLOSE)));
  }

  async #close(over: number): Promise<void> {
    // What the engine was asked before is sent on as well, or refused. At least a turn, so that `isClosed` holds from here on.
    await new Promise<void>((resolve) => {
      const cancel = after(departureOf(this.settings.timeout), resolve);
      void Promise.allSettled(this.#appends).then(cancel).then(resolve);
    });
    this.fanout.close();
    const clients = [...this.clients];
    const began = now();
    const steps = Math.max(1, Math.min(clients.length, Math.floor(over / LEAVING_STEP)));
    for (let step = 0; step < steps; step++) {
      // By the clock, because each timer is a little late.
      const wait = began + (step * over) / steps - now();
      if (wait > 0) await new Promise<void>((resolve) => after(wait, resolve));
      for (let index = step; index < clients.length; index += steps) {
        const client = clients[index] as Connection;
        void track(this.#departures, client.close("closing", this.controlEvents.end("closing", true), true));
      }
    }
    await Promise.all(this.#departures);
    this.authorizeQueue.close();
    this.stalled.clear();
    this.starting.clear();
    this.closing.clear();
    this.session?.close(this.settings.inboxLinger);
    this.knownClients.clear();
  }

  /** Reports what nobody was there to receive. Never rejects. */
  async reportError(stage: ErrorStage, error: unknown): Promise<void> {
    // Not from here: an append or a flush may be going on.
    await undefined;
    try {
      await this.settings.onError?.({ error, stage });
    } catch {
      // onError is where errors end; one of its own has no other place to go.
    }
  }

  /** Calls a hook at once, and waits for it only to hear of its errors. Never rejects. */
  async #hook<T>(stage: ErrorStage, hook: ((event: T) => unknown) | undefined, event: T): Promise<void> {
    try {
      await hook?.(event);
    } catch (error) {
      await this.reportError(stage, error);
    }
  }
}

/** Keeps a promise in a set for as long as it is pending. */
function track<T>(pending: Set<Promise<unknown>>, promise: Promise<T>): Promise<T> {
  const settled = (): unknown => pending.delete(promise);
  pending.add(promise);
  promise.then(settled, settled);
  return promise;
}
