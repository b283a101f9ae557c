// Registers connections, and ends them.

import type { ErrorReporter } from "../base/error-reporter.ts";
import { BrokerError } from "../base/errors.ts";
import { randomName } from "../base/random.ts";
import { track } from "../base/track.ts";
import { type ClientInfo, type Connection, type DisconnectReason, REPLACED_RETRY_MS } from "../delivery/connection.ts";
import { type ConnectionTimeouts, createConnectionTimeouts } from "../delivery/connection-timeouts.ts";
import { ControlEvents, type EndOptions, type HeartbeatChunk, PLAIN_HEARTBEAT } from "../delivery/control-events.ts";
import type { Fanout } from "../delivery/fanout.ts";
import { Heartbeat } from "../delivery/heartbeat.ts";
import { type ConnectionHost, StreamConnection } from "../delivery/stream-connection.ts";
import type { PeerCommand, PresenceResult } from "../engine/engine.ts";
import { inboxKey, keysOfClient } from "../event/channel-key.ts";
import type { EventInput } from "../event/event.ts";
import type { ResolvedGrant } from "../http/authorize.ts";
import { type HistoryBounds, remoteHistoryBounds, resolveResumePoint, type StartOptions } from "../log/resume.ts";
import type { ConnectionLimits } from "./connection-limits.ts";
import { KnownClients } from "./known-clients.ts";
import type { Settings } from "./options.ts";
import { ConnectionSnapshots, Snapshots } from "./snapshots.ts";
import { StreamRequests } from "./stream-requests.ts";

const REPLACED: EndOptions = { retry: REPLACED_RETRY_MS };

/** A connection that asks to be registered. */
export interface Arrival {
  readonly request: Request;
  readonly subject?: string | undefined;
  readonly clientId: string;
  readonly channels: readonly string[];
  readonly start: StartOptions;
  /** Epoch milliseconds of the first connect, if an open stream continues on another socket. It then receives only what it missed. */
  readonly since?: number | undefined;
  /** The secret that the client of such a stream has. */
  readonly secret?: string | undefined;
}

/** Characters of a stream's secret. Each has five random bits: 130 in all. */
const SECRET_LENGTH = 26;

/** The parts of the broker that the registry works with. */
export interface RegistryContext {
  readonly settings: Settings;
  readonly limits: ConnectionLimits;
  readonly errors: ErrorReporter;
  /** @throws {@link BrokerError} `closed` */
  checkOpen(): void;
}

/** The connections of one broker in this process. */
export class ConnectionRegistry implements ConnectionHost {
  readonly fanout: Fanout;
  readonly heartbeat: Heartbeat<StreamConnection>;
  readonly timeouts: ConnectionTimeouts;
  readonly controlEvents: ControlEvents;
  readonly knownClients: KnownClients;
  readonly connections: Set<Connection> = new Set();
  /** The connections whose clients can change their channels. */
  readonly bySecret: Map<string, Connection> = new Map();
  /** Carries out requests about the connections. */
  readonly requests: StreamRequests;
  /** Ended connections, by reason. */
  readonly disconnects: Partial<Record<DisconnectReason, number>> = {};
  readonly #context: RegistryContext;
  readonly #settings: Settings;
  readonly #snapshots: Snapshots | undefined;
  readonly #idPrefix = randomName(8);
  #idCounter = 0;
  /** When each connection was registered in the store, where processes share one. */
  readonly #enteredAt = new WeakMap<Connection, number>();
  /** Streams that have an end event to deliver and are not closed. */
  readonly #closing = new Set<Promise<unknown>>();

  constructor(context: RegistryContext, fanout: Fanout) {
    const { settings } = context;
    this.#context = context;
    this.#settings = settings;
    this.fanout = fanout;
    this.knownClients = new KnownClients(settings, fanout.session);
    this.heartbeat = new Heartbeat(settings.heartbeat, (connection) => connection.sendHeartbeat());
    this.controlEvents = new ControlEvents(settings);
    this.timeouts = createConnectionTimeouts(settings.timeout, settings.tolerance);
    this.requests = new StreamRequests(settings, this, context.limits);
    const { snapshot } = settings;
    this.#snapshots =
      snapshot &&
      new Snapshots(snapshot, settings, {
        fanout,
        reportError: (error) => void context.errors.report("snapshot", error),
        endFailed: (connection) => this.#close(connection, "snapshot-failed", true),
      });
  }

  /**
   * Registers a connection whose stream this process writes. Returns the stream, or `undefined` if the client id is barred.
   *
   * @throws as {@link register}
   */
  async connect(
    request: Request,
    { subject, channels, expiresAt }: ResolvedGrant,
    clientId: string,
    start: StartOptions,
    releaseSlot: () => void,
  ): Promise<ReadableStream<Uint8Array> | undefined> {
    const { maxConnectionAge } = this.#settings;
    const connection = await this.register(
      { request, subject, channels, clientId, start },
      releaseSlot,
      (info, keys) => {
        const onMaxAge = (): void => this.#close(connection, "max-age", true);
        const lifetime = { signal: request.signal, expiresAt, maxConnectionAge, onMaxAge };
        const connection: StreamConnection = new StreamConnection(this, info, keys, lifetime);
        this.heartbeat.add(connection);
        return connection;
      },
    );
    return connection?.stream();
  }

  /**
   * Registers a connection that `create` creates. Returns `undefined` if the client id is barred.
   *
   * @throws {@link BrokerError} `closed`, `client-left` if the client left before it was registered, `duplicate-id`, `at-capacity`,
   * `engine-down`; what the engine's option `channels` throws.
   */
  async register<C extends Connection>(
    arrival: Arrival,
    releaseSlot: () => void,
    create: (info: ClientInfo, keys: readonly string[]) => C,
  ): Promise<C | undefined> {
    const { request, subject, channels, clientId, start, since, secret } = arrival;
    const { fanout, knownClients } = this;
    const { session } = fanout;
    const { maxReplay, onConnect } = this.#settings;
    const keys = keysOfClient(clientId, channels);
    session.log.checkChannels(keys);
    const presence = { clientId, subject };
    let entered: PresenceResult | undefined;
    let bounds: HistoryBounds | undefined;
    const undo = (): void => {
      session.unsubscribe?.(keys);
      if (entered !== undefined && entered !== "barred") knownClients.revoke(presence);
    };
    const subscribed = session.subscribe?.(keys);
    // Awaited only if there is something to wait for: an event that is published right after this call is for this client too.
    if (subscribed !== undefined) await subscribed;
    try {
      const entering = knownClients.enter(presence);
      if (entering !== undefined) entered = await entering;
      const lookUp = session.historyBounds?.bind(session);
      const lookingUp = remoteHistoryBounds(session.log, lookUp, keys, start, maxReplay);
      if (lookingUp !== undefined) bounds = await lookingUp;
      this.#context.checkOpen();
      if (request.signal.aborted) throw new BrokerError("client-left", "Connection refused: the client has left.");
      if (bounds && bounds.epoch !== session.log.epoch)
        throw new BrokerError(
          "engine-down",
          "Connection refused: the log was replaced while the client connected; try again.",
        );
      if (entered === "barred" || knownClients.isBarred(clientId)) {
        undo();
        return undefined;
      }
      const sharing = fanout.channels.connectionsOf([inboxKey(clientId)]);
      for (const replaced of this.#context.limits.makeRoom(clientId, arrival, sharing, since))
        this.#close(replaced, "replaced", false, REPLACED);
    } catch (error) {
      undo();
      throw error;
    }

    const info: ClientInfo = Object.freeze({
      clientId,
      connectionId: `${this.#idPrefix}-${++this.#idCounter}`,
      ...(subject === undefined ? {} : { subject }),
      channels: Object.freeze(channels),
      connectedAt: since ?? Date.now(),
    });
    const connection = create(info, keys);
    if (typeof entered === "number") this.#enteredAt.set(connection, entered);
    connection.secret = secret ?? this.#newSecret();
    const snapshots = this.#snapshots && new ConnectionSnapshots(this.#snapshots, connection, request);
    connection.snapshots = snapshots;
    const resumed = resolveResumePoint(session.log, connection.channels, start, maxReplay, bounds);
    const point = snapshots?.openAt(resumed) ?? resumed;
    const opening = this.controlEvents.opening(session.log, info, point, since !== undefined, connection.secret);
    connection.startAt(point, opening);
    fanout.countOpeningGaps(point.gaps);
    releaseSlot();
    this.add(connection);
    const send = (event: EventInput): void => this.requests.send(connection, event);
    void this.#context.errors.callHook("on-connect", onConnect, { client: info, request, send });
    return connection;
  }

  /** Counts a connection that is registered. */
  add(connection: Connection): void {
    if (this.#snapshots) connection.snapshots ??= new ConnectionSnapshots(this.#snapshots, connection);
    this.connections.add(connection);
    if (connection.secret !== undefined) this.bySecret.set(connection.secret, connection);
    this.#context.limits.add(connection.info);
  }

  /** Returns a secret for a new connection, if its client may change its channels and `announce` is on. */
  #newSecret(): string | undefined {
    const { announce, paths } = this.#settings;
    return announce && (paths.subscribe || paths.unsubscribe) ? randomName(SECRET_LENGTH) : undefined;
  }

  heartbeatFor(connection: StreamConnection): HeartbeatChunk {
    const { log, position } = this.fanout;
    if (!this.#settings.announce || !connection.live || connection.cursor >= position) return PLAIN_HEARTBEAT;
    // Before half of the shortest retention's age is over: nobody could judge the client's last id afterwards.
    const idleMs = this.heartbeat.since(connection.lastPositionTick);
    const age = Math.min(...connection.channels.map(({ retention }) => retention?.age ?? Infinity));
    return idleMs < age / 2 ? PLAIN_HEARTBEAT : this.controlEvents.position(log, position);
  }

  endEvent(reason: DisconnectReason, reconnect: boolean): Uint8Array<ArrayBuffer> {
    return this.controlEvents.end(reason, reconnect);
  }

  unsubscribe(connection: Connection): void {
    connection.snapshots?.cancel();
    if (this.fanout.unsubscribe(connection))
      this.fanout.session.unsubscribe?.(connection.channels.map(({ key }) => key));
  }

  remove(connection: Connection, reason: DisconnectReason): void {
    const { info } = connection;
    this.connections.delete(connection);
    if (this.bySecret.get(connection.secret ?? "") === connection) this.bySecret.delete(connection.secret as string);
    this.knownClients.removed({ clientId: info.clientId, subject: info.subject });
    if (connection instanceof StreamConnection) this.heartbeat.delete(connection);
    this.timeouts.blocked.delete(connection);
    this.disconnects[reason] = (this.disconnects[reason] ?? 0) + 1;
    const { onDisconnect } = this.#settings;
    // In a microtask of its own: a flush may be running, and the hook may publish.
    queueMicrotask(() => void this.#context.errors.callHook("on-disconnect", onDisconnect, { client: info, reason }));
  }

  onClosed(connection: Connection): void {
    this.#context.limits.remove(connection.info);
  }

  /** Ends the connections of a client id in all processes, and bars the id for `barFor` milliseconds. Returns how many connections ended. */
  disconnect(clientId: string, barFor: number, reason?: string): number | Promise<number> {
    this.knownClients.bar(clientId, barFor);
    const connections = this.fanout.channels.connectionsOf([inboxKey(clientId)]);
    for (const connection of connections) this.#close(connection, "disconnected", barFor <= 0, { detail: reason });
    const elsewhere = this.knownClients.disconnect(clientId, barFor, reason);
    return typeof elsewhere === "number"
      ? connections.size + elsewhere
      : elsewhere.then((others) => connections.size + others);
  }

  /** Carries out a command of another process, on the connections that existed when it was given. */
  onCommand({ type, clientId, subject, barFor, reason, at = Infinity }: PeerCommand): void {
    if (type === "disconnect") this.knownClients.bar(clientId, barFor);
    for (const connection of this.fanout.channels.connectionsOf([inboxKey(clientId)])) {
      if ((this.#enteredAt.get(connection) ?? 0) > at) continue;
      if (type === "disconnect") this.#close(connection, "disconnected", barFor <= 0, { detail: reason });
      else if (connection.info.subject === subject) this.#close(connection, "replaced", false, REPLACED);
    }
  }

  /** Ends a connection because the broker closes. Without `force` the client first receives everything it has not read. */
  closeWithBroker(connection: Connection, force = false): void {
    const endEvent = this.controlEvents.end("closing", true);
    // A client that leaves in the middle of a snapshot gets it whole when it comes back.
    const drain = !connection.snapshots?.stop() && !force;
    void track(this.#closing, connection.close("closing", { endEvent, drain, force }));
  }

  /** Resolves when every connection that is ending has closed. */
  async allClosed(): Promise<void> {
    await Promise.all(this.#closing);
  }

  /** Stops all timers and forgets all client ids. */
  clear(): void {
    for (const queue of Object.values(this.timeouts)) queue.clear();
    this.knownClients.clear();
  }

  /** Ends a connection with an end event, without the events it has not read. */
  #close(connection: Connection, reason: DisconnectReason, reconnect: boolean, more?: EndOptions): void {
    const endEvent = this.controlEvents.end(reason, reconnect, more);
    void track(this.#closing, connection.close(reason, { endEvent, drain: false }));
  }
}
