// The broker inside a Durable Object: serves Workers over RPC and WebSockets, and restores its connections after hibernation.
import { BrokerError } from "../base/errors.ts";
import { randomName } from "../base/random.ts";
import { brokerOf } from "../broker/broker.ts";
import { BrokerCore } from "../broker/broker-core.ts";
import type { Broker } from "../broker/interface.ts";
import { type BrokerOptions, resolveOptions } from "../broker/options.ts";
import type { RunningBroker } from "../broker/running-broker.ts";
import type { WithRuns } from "../broker/runs-host.ts";
import type { ClientInfo, Connection, DisconnectReason } from "../delivery/connection.ts";
import type { Reported } from "../delivery/delivery-report.ts";
import { keysOfClient } from "../event/channel-key.ts";
import { checkHealth } from "../monitoring/health.ts";
import { ChangedStreams } from "./changed-streams.ts";
import type { ObjectContext, Socket } from "./cloudflare.ts";
import type { HubOptions } from "./hub.ts";
import type { RpcRequest } from "./object-backend.ts";
import { ObjectConnection, type ObjectConnectionHost } from "./object-connection.ts";
import {
  CLOSE_PROTOCOL_ERROR,
  type ConnectionTiming,
  type Hello,
  kinds,
  PING,
  type Refusal,
  readWorkerFrame,
  refusalOf,
  writeJsonFrame,
} from "./protocol.ts";
import { type DurableEngineOptions, durableEngine, type ObjectEngine } from "./sqlite-engine.ts";

/** Options that the Worker and the object share. */
type SharedOption = "maxChannelsPerClient" | "maxChannelsPerEvent" | "maxNameLength" | "onError" | "retry";

/** Options of {@link BrokerObject}: the options of `createBroker` that concern events and clients, and the options of the object's log. */
export interface ObjectOptions
  extends Omit<BrokerOptions, "engine" | Exclude<keyof HubOptions, SharedOption>>,
    DurableEngineOptions {}

/**
 * Times of the fan-out, in milliseconds. The clock of a deployed Worker stands still between I/O, so the duration of a flush cannot be
 * measured. Acknowledgements are slow: outgoing messages wait until the storage has confirmed earlier writes, and then travel to a Worker
 * that may be on another continent, and back.
 */
const OBJECT_FLUSH_TIMING = { window: 16, hold: 250 };
/** Milliseconds between the last disconnect and the check whether the object still keeps anything. */
const IDLE_CHECK_MS = 60_000;
/** The stored value of `connected` while a client is connected. Later it is the time until which clients may come back. */
const CONNECTED = 1;

/** The state that a socket carries over hibernation. */
interface Attachment {
  readonly ackBytes: number;
  readonly ackNumber: number;
  readonly isHeld: boolean;
  readonly info?: ClientInfo;
  readonly secret?: string | undefined;
  /** The id of the row that has `info`, which is too large for an attachment. */
  readonly row?: string;
}

const attachmentOf = (socket: Socket): Partial<Attachment> =>
  (socket.deserializeAttachment() ?? {}) as Partial<Attachment>;

/** The broker inside an object. Created at the first use after the object starts. */
export class ObjectBroker implements ObjectConnectionHost {
  readonly broker: Broker & WithRuns;
  /** Proves that a request comes from a hub. Only code that can call the object over RPC learns it. */
  readonly secret: string;
  readonly #ctx: ObjectContext;
  readonly #core: BrokerCore;
  readonly #running: RunningBroker;
  readonly #engine: ObjectEngine;
  readonly #connections = new Map<string, ObjectConnection>();
  readonly #changed: ChangedStreams;
  /** The stored value of `connected`. */
  #connectedMark = 0;
  /** Epoch milliseconds. */
  #positionsSentAt = 0;
  readonly timing: ConnectionTiming;
  readonly epoch: string;

  /** `closing` is a socket whose close woke the object: the runtime no longer lists it, and its connection is restored as well. */
  constructor(ctx: ObjectContext, options: ObjectOptions, requestWake: (time: number) => void, closing?: Socket) {
    const { retention, channels, logBytes, maxChannels, tenant, idempotencyWindow, ...rest } = options;
    this.#ctx = ctx;
    const logOptions = { retention, channels, logBytes, maxChannels, tenant, idempotencyWindow };
    this.#engine = durableEngine(ctx.storage, logOptions);
    this.#engine.requestWake = requestWake;
    this.#engine.onError = (error) => this.report(error);
    const settings = resolveOptions({ ...rest, engine: this.#engine }, "BrokerObject");
    const { onConnect, onDisconnect } = settings;
    this.#core = new BrokerCore(
      {
        ...settings,
        onConnect: (event) => {
          this.#markConnected(CONNECTED);
          return onConnect?.(event);
        },
        onDisconnect: (event) => {
          if (this.#core.connections.size === 0) {
            this.#markConnected(0);
            this.#engine.requestWake?.(Date.now() + IDLE_CHECK_MS);
          }
          return onDisconnect?.(event);
        },
      },
      OBJECT_FLUSH_TIMING,
    );
    this.broker = brokerOf(this.#core);
    this.#running = this.#core.open();
    const { log } = this.#running.fanout;
    this.epoch = log.epoch;
    const { heartbeat, timeout, tolerance, maxConnectionAge, retry, announce } = settings;
    const quietMs = announce ? log.retention.age / 2 : Infinity;
    this.timing = { heartbeat, timeout, tolerance, maxConnectionAge, retry, quietMs };
    const state = this.#readState();
    this.secret = state.get("secret") as string;
    this.#connectedMark = Number(state.get("connected") ?? 0);
    this.#changed = new ChangedStreams(ctx.storage);
    this.#restore(log.head, closing);
    this.#changed.cleanUp((id) => this.#connections.has(id));
    if (this.#connectedMark > 0 && this.#core.connections.size === 0) this.#expectReturns(settings.inboxLinger);
  }

  get fanout(): RunningBroker["fanout"] {
    return this.#running.fanout;
  }

  get controlEvents(): RunningBroker["registry"]["controlEvents"] {
    return this.#running.registry.controlEvents;
  }

  get timeouts(): RunningBroker["registry"]["timeouts"] {
    return this.#running.registry.timeouts;
  }

  unsubscribe(connection: Connection): void {
    this.#running.registry.unsubscribe(connection);
  }

  remove(connection: Connection, reason: DisconnectReason): void {
    this.#running.registry.remove(connection, reason);
  }

  onClosed(connection: Connection): void {
    this.#running.registry.onClosed(connection);
  }

  /** Whether no client is connected, and nothing is stored. */
  get isEmpty(): boolean {
    const { fanout, registry } = this.#running;
    return (
      fanout.channels.size === 0 &&
      registry.knownClients.expectedFor <= 0 &&
      this.#engine.isEmpty &&
      this.#ctx.getWebSockets().length === 0
    );
  }

  /**
   * Drops old events, names and runs, and sends positions to quiet clients. Returns the milliseconds until the next run; `Infinity` if none is
   * needed.
   */
  runMaintenance(): number {
    const nextMs = this.#engine.cleanUp();
    this.#changed.cleanUp((id) => this.#connections.has(id));
    const time = Date.now();
    if (time - this.#positionsSentAt >= this.timing.quietMs / 2) {
      this.#positionsSentAt = time;
      for (const connection of this.#connections.values()) connection.sendPosition();
    }
    const expectedMs = this.#running.registry.knownClients.expectedFor;
    // Clients that did not come back by now are no longer expected.
    if (expectedMs <= 0 && this.#core.connections.size === 0) this.#markConnected(0);
    return expectedMs > 0 ? Math.min(nextMs, Math.max(expectedMs, IDLE_CHECK_MS)) : nextMs;
  }

  /** Serves a request of the Worker. */
  async serve(request: RpcRequest): Promise<unknown> {
    const core = this.#core;
    if (request.type === "secret") return this.secret;
    if (request.type === "barred") return core.isBarred(request.clientId);
    if (request.type === "disconnect") return { clients: await core.disconnect(request.clientId, request) };
    if (request.type === "streams") return core.requestStreams(request.request);
    if (request.type === "history") return core.history(request.keys, request.start, request.limit);
    if (request.type === "check") return checkHealth(core);
    if (request.type === "stats") return this.broker.stats();
    const { report, ...published } = (await core.publish(request.keys, request.event, request.options)) as Reported;
    return report === undefined ? published : { ...published, report: () => report };
  }

  /** Accepts an upgrade. Returns one end of a new socket to the Worker; the other end outlives this instance. */
  accept(): Response {
    const [workerEnd, objectEnd] = Object.values(new WebSocketPair());
    this.#ctx.setWebSocketAutoResponse(new WebSocketRequestResponsePair(...PING));
    this.#ctx.acceptWebSocket(objectEnd as Socket);
    return new Response(null, { status: 101, webSocket: workerEnd } as ResponseInit);
  }

  /** Returns the stream of a client, in mode `direct`. */
  async stream(request: Request, hello: string): Promise<Response> {
    try {
      const { grant, clientId, start, url } = readWorkerFrame(hello) as Hello;
      // A new request for the hooks, because this one carries the object's secret.
      const { signal } = request;
      const visitorRequest = new Request(url, { signal });
      const stream = await this.#withSlot(clientId, (releaseSlot) =>
        this.#core.connect(visitorRequest, grant, clientId, start, releaseSlot),
      );
      return stream ? new Response(stream) : Response.json({}, { status: 503 });
    } catch (error) {
      return Response.json(this.refuse(error), { status: 503 });
    }
  }

  /** A message of the Worker arrived. */
  receive(socket: Socket, message: unknown): void {
    const frame = readWorkerFrame(message);
    const connection = this.#connectionOf(socket);
    if (!frame || (frame.kind === "hello" && connection)) socket.close(CLOSE_PROTOCOL_ERROR, "unknown frame");
    else if (frame.kind === "hello") void this.#register(socket, frame);
    // Frames of a connection that has closed may still be on their way.
    else if (frame.kind === "ack") connection?.onAck(frame);
    else connection?.onRefill(frame);
  }

  onSocketClosed(socket: Socket, reason: DisconnectReason): void {
    this.#connectionOf(socket)?.onSocketClosed(reason);
  }

  save(connection: ObjectConnection): void {
    const { info, secret, ackBytes, ackNumber, isHeld, socket } = connection;
    const state = { secret, ackBytes, ackNumber, isHeld };
    try {
      socket.serializeAttachment({ info, ...state } satisfies Attachment);
    } catch {
      // The list of channels is larger than an attachment may be.
      const { connectionId } = info;
      socket.serializeAttachment({ row: connectionId, ...state } satisfies Attachment);
      const query = "INSERT OR REPLACE INTO fanwire_connections VALUES (?, ?)";
      this.#tryWrite(() => this.#ctx.storage.sql.exec(query, connectionId, JSON.stringify(info)));
    }
    this.#connections.set(info.connectionId, connection);
  }

  saveChannels(connection: ObjectConnection): void {
    const { connectionId, channels } = connection.info;
    this.save(connection);
    this.#tryWrite(() => this.#changed.set(connectionId, channels));
  }

  /** Writes what can be done without if the storage is full. */
  #tryWrite(write: () => void): void {
    try {
      write();
    } catch (error) {
      this.report(error);
    }
  }

  forget({ info, socket }: ObjectConnection): void {
    const { connectionId } = info;
    this.#connections.delete(connectionId);
    this.#tryWrite(() => {
      const { row } = attachmentOf(socket);
      if (row !== undefined) this.#ctx.storage.sql.exec("DELETE FROM fanwire_connections WHERE id = ?", row);
      // The socket is listed until its other end is closed as well, and would count as a client after hibernation.
      socket.serializeAttachment(null);
      this.#changed.onClosed(connectionId);
    });
  }

  async #register(socket: Socket, { grant, clientId, start, url, previous }: Hello): Promise<void> {
    try {
      // The previous connection of this stream is over, even if its socket has not closed yet.
      if (previous) this.#connections.get(previous.connectionId)?.onSocketClosed("client-left");
      const changed = previous && this.#changed.take(previous.connectionId);
      const { subject, channels } = grant;
      const arrival = {
        ...{ request: new Request(url), subject, clientId, start },
        ...{ channels: changed ?? channels, since: previous?.connectedAt, secret: previous?.secret },
      };
      const { registry } = this.#running;
      const create = (info: ClientInfo, keys: readonly string[]) => new ObjectConnection(this, socket, info, keys);
      const connection = await this.#withSlot(clientId, (release) => registry.register(arrival, release, create));
      if (!connection) socket.send(writeJsonFrame(kinds.refusal, {}));
      else if (changed) {
        connection.onChannelsChanged();
        registry.requests.announceAgain(connection);
      }
    } catch (error) {
      socket.send(writeJsonFrame(kinds.refusal, this.refuse(error)));
    }
  }

  /** Reports a write that the storage refused. */
  report(error: unknown): void {
    void this.#core.reportError("storage", error);
  }

  /** Returns the form of an error that may leave the object. Reports an unexpected error, and hides its text. */
  refuse(error: unknown): Refusal {
    if (!(error instanceof BrokerError)) void this.#core.reportError("request", error);
    return refusalOf(error);
  }

  /** Runs `register` with a reserved slot. Returns `undefined` if the client id is barred. @throws {@link BrokerError} `at-capacity` */
  async #withSlot<T>(
    clientId: string,
    register: (releaseSlot: () => void) => Promise<T | undefined>,
  ): Promise<T | undefined> {
    if (this.#running.registry.knownClients.isBarred(clientId)) return undefined;
    const releaseSlot = this.#core.reserve();
    if (!releaseSlot)
      throw new BrokerError(
        "at-capacity",
        "Connection refused: the object has maxClients connections; try again later.",
      );
    try {
      return await register(releaseSlot);
    } finally {
      releaseSlot();
    }
  }

  #connectionOf(socket: Socket): ObjectConnection | undefined {
    const { info, row } = attachmentOf(socket);
    return this.#connections.get(info?.connectionId ?? row ?? "");
  }

  /** Reads the object's stored state besides its log. Creates it at the first start. */
  #readState(): ReadonlyMap<unknown, unknown> {
    const { sql } = this.#ctx.storage;
    sql.exec("CREATE TABLE IF NOT EXISTS fanwire_connections (id TEXT PRIMARY KEY, info TEXT NOT NULL) WITHOUT ROWID");
    const read = () =>
      new Map(Array.from(sql.exec("SELECT name, value FROM fanwire_meta"), ({ name, value }) => [name, value]));
    const state = read();
    if (state.has("secret")) return state;
    sql.exec("INSERT INTO fanwire_meta VALUES ('secret', ?)", randomName(26));
    // The object may never be used again, and then has to be emptied.
    this.#engine.requestWake?.(Date.now() + IDLE_CHECK_MS);
    return read();
  }

  /** Stores for the next instance that a client is connected, or the time until which clients may come back; 0 for neither. */
  #markConnected(value: number): void {
    if (value === this.#connectedMark) return;
    this.#connectedMark = value;
    const { sql } = this.#ctx.storage;
    try {
      if (value > 0) sql.exec("INSERT OR REPLACE INTO fanwire_meta VALUES ('connected', ?)", value);
      else sql.exec("DELETE FROM fanwire_meta WHERE name = 'connected'");
    } catch (error) {
      this.report(error);
    }
  }

  /** Clients of the previous instance are about to come back. Their ids are not known, so every id counts as known for a while. */
  #expectReturns(inboxLinger: number): void {
    const time = Date.now();
    const until = this.#connectedMark === CONNECTED ? time + inboxLinger : this.#connectedMark;
    this.#markConnected(until > time ? until : 0);
    if (until > time) this.#running.registry.knownClients.expectReturns(until - time);
    this.#engine.requestWake?.(Math.max(until, time + IDLE_CHECK_MS));
  }

  /** Restores the connections whose sockets outlived the previous instance. */
  #restore(head: number, closing: Socket | undefined): void {
    const { sql } = this.#ctx.storage;
    const rows = new Map<string, ClientInfo>();
    for (const { id, info } of sql.exec("SELECT id, info FROM fanwire_connections"))
      rows.set(id as string, JSON.parse(info as string));
    for (const socket of new Set([...this.#ctx.getWebSockets(), ...(closing ? [closing] : [])])) {
      const { info: attachedInfo, secret, row, ackBytes = 0, ackNumber = 0, isHeld } = attachmentOf(socket);
      const info = attachedInfo ?? rows.get(row ?? "");
      if (!info) {
        // A socket without a row has not sent its hello yet.
        if (row !== undefined) socket.close(CLOSE_PROTOCOL_ERROR, "unknown connection");
        continue;
      }
      rows.delete(row ?? "");
      const connection = new ObjectConnection(this, socket, info, keysOfClient(info.clientId, info.channels));
      connection.secret = secret;
      connection.restore(head, ackBytes, ackNumber);
      this.#connections.set(info.connectionId, connection);
      this.#running.registry.add(connection);
      // The previous instance was in the middle of a snapshot. The Worker asks the client to come back for it.
      if (isHeld) connection.onSocketClosed("snapshot-failed");
    }
    for (const id of rows.keys()) sql.exec("DELETE FROM fanwire_connections WHERE id = ?", id);
  }
}

declare const WebSocketPair: new () => Readonly<Record<"0" | "1", Socket>>;
declare const WebSocketRequestResponsePair: new (ping: string, pong: string) => object;
