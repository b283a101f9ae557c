import { BrokerError } from "../base/errors.ts";
import { randomName } from "../base/random.ts";
import { type Broker, brokerOf } from "../broker/broker.ts";
import { Core } from "../broker/core.ts";
import { type BrokerOptions, resolveOptions } from "../broker/options.ts";
import type { Reported } from "../delivery/delivery-report.ts";
import type { ClientInfo, DisconnectReason } from "../delivery/stream-connection.ts";
import { keysOfClient } from "../event/channel-key.ts";
import { checkHealth } from "../monitoring/health.ts";
import type { ObjectContext, Socket } from "./cloudflare.ts";
import type { HubOptions, ObjectCall } from "./hub.ts";
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

/** What of the Worker's options the object has as well. */
type Both = "maxChannelsPerClient" | "maxChannelsPerEvent" | "maxNameLength" | "onError" | "retry";

/** Options of {@link BrokerObject}: those of `createBroker` that concern events and clients, and those of its log. */
export interface ObjectOptions
  extends Omit<BrokerOptions, "engine" | Exclude<keyof HubOptions, Both>>,
    DurableEngineOptions {}

/**
 * The clock of a deployed Worker stands still while it works, so nothing can be measured. What is sent waits until the storage has what was
 * written before it, and then for the way to a Worker that may be on another continent, and back.
 */
const RHYTHM = { window: 16, hold: 250 };
/** Milliseconds after the last client left that an object looks whether there is anything to keep. */
const LAST_LEFT = 60_000;
/** What is noted while somebody is connected; later it is until when they may come back. */
const CONNECTED = 1;

/** What a socket carries over hibernation. */
interface Attachment {
  readonly info: ClientInfo;
  readonly asked: number;
  readonly asks: number;
}

/** What an object is once something uses it. */
export class ObjectBroker implements ObjectConnectionHost {
  readonly broker: Broker;
  readonly secret: string;
  readonly #ctx: ObjectContext;
  readonly #core: Core;
  readonly #engine: ObjectEngine;
  readonly #links = new Map<string, ObjectConnection>();
  #noted = 0;
  #pulsedAt = 0;
  readonly pacing: ConnectionTiming;
  readonly epoch: string;

  constructor(ctx: ObjectContext, options: ObjectOptions, wakeAt: (time: number) => void, closing?: Socket) {
    const { retention, logBytes, maxChannels, keyWindow, ...rest } = options;
    this.#ctx = ctx;
    this.#engine = durableEngine(ctx.storage, { retention, logBytes, maxChannels, keyWindow });
    this.#engine.onKept = wakeAt;
    this.#engine.onError = (error) => this.report(error);
    const settings = resolveOptions({ ...rest, engine: this.#engine }, "BrokerObject");
    const { onConnect, onDisconnect } = settings;
    this.#core = new Core(
      {
        ...settings,
        onConnect: (event) => {
          this.#note(CONNECTED);
          return onConnect?.(event);
        },
        onDisconnect: (event) => {
          if (this.#core.clients.size === 0) {
            this.#note(0);
            this.#engine.onKept?.(Date.now() + LAST_LEFT);
          }
          return onDisconnect?.(event);
        },
      },
      RHYTHM,
    );
    this.broker = brokerOf(this.#core);
    const { log } = this.#core.open();
    this.epoch = log.epoch;
    const { heartbeat, timeout, tolerance, maxAge, retry, announce } = settings;
    const quiet = announce ? log.retention.age / 2 : Infinity;
    this.pacing = { heartbeat, timeout, tolerance, maxAge, retry, quiet };
    const meta = this.#recall();
    this.secret = meta.get("secret") as string;
    this.#noted = Number(meta.get("connected") ?? 0);
    this.#restore(log.head, closing);
    if (this.#noted > 0 && this.#core.clients.size === 0) this.#expectReturns(settings.inboxLinger);
  }

  get fanout(): Core["fanout"] {
    return this.#core.fanout;
  }

  get announcer(): Core["controlEvents"] {
    return this.#core.controlEvents;
  }

  get stalled(): Core["stalled"] {
    return this.#core.stalled;
  }

  get closing(): Core["closing"] {
    return this.#core.closing;
  }

  unsubscribe(link: ObjectConnection): void {
    this.#core.unsubscribe(link);
  }

  remove(link: ObjectConnection, reason: DisconnectReason): void {
    this.#core.remove(link, reason);
  }

  /** Nobody reads, and nothing is kept. */
  get isEmpty(): boolean {
    const { fanout, knownClients } = this.#core;
    return (
      fanout.channels === 0 &&
      knownClients.expectedFor <= 0 &&
      this.#engine.isEmpty &&
      this.#ctx.getWebSockets().length === 0
    );
  }

  tidy(): number {
    const next = this.#engine.tidy();
    const time = Date.now();
    if (time - this.#pulsedAt >= this.pacing.quiet / 2) {
      this.#pulsedAt = time;
      for (const link of this.#links.values()) link.pulse();
    }
    const expected = this.#core.knownClients.expectedFor;
    // Those who did not come back are not expected any more.
    if (expected <= 0 && this.#core.clients.size === 0) this.#note(0);
    return expected > 0 ? Math.min(next, Math.max(expected, LAST_LEFT)) : next;
  }

  async serve(call: ObjectCall): Promise<unknown> {
    const core = this.#core;
    if (call.type === "secret") return this.secret;
    if (call.type === "barred") return core.isBarred(call.clientId);
    if (call.type === "disconnect") return { clients: await core.disconnect(call.clientId, call.barFor) };
    if (call.type === "check") return checkHealth(core);
    if (call.type === "stats") return this.broker.stats();
    const { report, ...published } = (await core.publish(call.keys, call.event, call.options)) as Reported;
    return report === undefined ? published : { ...published, report: () => report };
  }

  /** One end of a socket for the Worker; the other one outlives this instance. */
  accept(): Response {
    const [theirs, ours] = Object.values(new WebSocketPair());
    this.#ctx.setWebSocketAutoResponse(new WebSocketRequestResponsePair(...PING));
    this.#ctx.acceptWebSocket(ours as Socket);
    return new Response(null, { status: 101, webSocket: theirs } as ResponseInit);
  }

  /** A client whose stream is held here. */
  async stream(request: Request, hello: string): Promise<Response> {
    try {
      const { admission, clientId, start, url } = readWorkerFrame(hello) as Hello;
      // For the hooks: the one that came has the object's secret.
      const { signal } = request;
      const visitor = new Request(url, { signal });
      const stream = await this.#letIn(clientId, (place) =>
        this.#core.connect(visitor, admission, clientId, start, place),
      );
      return stream ? new Response(stream) : Response.json({}, { status: 503 });
    } catch (error) {
      return Response.json(this.refuse(error), { status: 503 });
    }
  }

  receive(socket: Socket, message: unknown): void {
    const frame = readWorkerFrame(message);
    const link = this.#linkOf(socket);
    if (!frame || (frame.kind === "hello" && link)) socket.close(CLOSE_PROTOCOL_ERROR, "foreign frame");
    else if (frame.kind === "hello") void this.#admit(socket, frame);
    // Of one that has ended there may be something on its way.
    else if (frame.kind === "ack") link?.acknowledged(frame);
    else link?.refill(frame);
  }

  closed(socket: Socket, reason: DisconnectReason): void {
    this.#linkOf(socket)?.onSocketClosed(reason);
  }

  save(link: ObjectConnection): void {
    const { info, asked, asks, socket } = link;
    const attachment: Attachment = { info, asked, asks };
    try {
      socket.serializeAttachment(attachment);
    } catch {
      // Its channels are too many for what a socket carries.
      const { connectionId } = info;
      socket.serializeAttachment({ row: connectionId, asked, asks });
      try {
        this.#ctx.storage.sql.exec(
          "INSERT OR IGNORE INTO fanwire_links VALUES (?, ?)",
          connectionId,
          JSON.stringify(info),
        );
      } catch (error) {
        this.report(error);
      }
    }
    this.#links.set(info.connectionId, link);
  }

  forget(link: ObjectConnection): void {
    const { connectionId } = link.info;
    const { socket } = link;
    this.#links.delete(connectionId);
    try {
      const { row } = (socket.deserializeAttachment() ?? {}) as { row?: string };
      if (row !== undefined) this.#ctx.storage.sql.exec("DELETE FROM fanwire_links WHERE id = ?", row);
      // Until its other end is closed as well it is among the sockets, and would be taken for a client after hibernation.
      socket.serializeAttachment(null);
    } catch (error) {
      this.report(error);
    }
  }

  async #admit(socket: Socket, { admission, clientId, start, url, again }: Hello): Promise<void> {
    try {
      // The connection that it was is over, if that did not show yet.
      if (again) this.#links.get(again.connectionId)?.onSocketClosed("client-left");
      const { subject, channels } = admission;
      const arrival = { request: new Request(url), subject, clientId, channels, start, since: again?.connectedAt };
      const link = await this.#letIn(clientId, (place) =>
        this.#core.register(arrival, place, (info, keys) => new ObjectConnection(this, socket, info, keys)),
      );
      if (!link) socket.send(writeJsonFrame(kinds.refusal, {}));
    } catch (error) {
      socket.send(writeJsonFrame(kinds.refusal, this.refuse(error)));
    }
  }

  /** Tells `onError` of what the storage refused. */
  report(error: unknown): void {
    void this.#core.reportError("storage", error);
  }

  /** What is told of an error; of one that is not the broker's that is nothing, and `onError` hears of it. */
  refuse(error: unknown): Refusal {
    if (!(error instanceof BrokerError)) void this.#core.reportError("request", error);
    return refusalOf(error);
  }

  /** Lets one in if there is room; `undefined` for one that is turned away. */
  async #letIn<T>(clientId: string, enter: (place: () => void) => Promise<T | undefined>): Promise<T | undefined> {
    if (this.#core.knownClients.isBarred(clientId)) return undefined;
    const place = this.#core.reserve();
    if (!place) throw new BrokerError("at-capacity", "Connection refused: there are too many clients.");
    try {
      return await enter(place);
    } finally {
      place();
    }
  }

  #linkOf(socket: Socket): ObjectConnection | undefined {
    const { info, row } = (socket.deserializeAttachment() ?? {}) as Partial<Attachment> & { row?: string };
    return this.#links.get(info?.connectionId ?? row ?? "");
  }

  /** What is known of the object beside its log. */
  #recall(): ReadonlyMap<unknown, unknown> {
    const { sql } = this.#ctx.storage;
    sql.exec("CREATE TABLE IF NOT EXISTS fanwire_links (id TEXT PRIMARY KEY, info TEXT NOT NULL) WITHOUT ROWID");
    const read = () =>
      new Map(Array.from(sql.exec("SELECT name, value FROM fanwire_meta"), ({ name, value }) => [name, value]));
    const meta = read();
    if (meta.has("secret")) return meta;
    sql.exec("INSERT INTO fanwire_meta VALUES ('secret', ?)", randomName(26));
    // It may never be used.
    this.#engine.onKept?.(Date.now() + LAST_LEFT);
    return read();
  }

  /** Writes down that somebody is connected, or until when they may come back, for the instance that comes after a crash; 0 for neither. */
  #note(value: number): void {
    if (value === this.#noted) return;
    this.#noted = value;
    const { sql } = this.#ctx.storage;
    try {
      if (value > 0) sql.exec("INSERT OR REPLACE INTO fanwire_meta VALUES ('connected', ?)", value);
      else sql.exec("DELETE FROM fanwire_meta WHERE name = 'connected'");
    } catch (error) {
      this.report(error);
    }
  }

  /** Clients were lost with the instance before this one, and are about to come back; nobody knows who they are. */
  #expectReturns(inboxLinger: number): void {
    const time = Date.now();
    const until = this.#noted === CONNECTED ? time + inboxLinger : this.#noted;
    this.#note(until > time ? until : 0);
    if (until > time) this.#core.knownClients.expectReturns(until - time);
    this.#engine.onKept?.(Math.max(until, time + LAST_LEFT));
  }

  /** The clients whose sockets outlived the instance before this one. */
  #restore(head: number, closing: Socket | undefined): void {
    const { sql } = this.#ctx.storage;
    const rows = new Map<string, ClientInfo>();
    for (const { id, info } of sql.exec("SELECT id, info FROM fanwire_links"))
      rows.set(id as string, JSON.parse(info as string));
    for (const socket of new Set([...this.#ctx.getWebSockets(), ...(closing ? [closing] : [])])) {
      const kept = (socket.deserializeAttachment() ?? {}) as Partial<Attachment> & { row?: string };
      const info = kept.info ?? rows.get(kept.row ?? "");
      if (!info) {
        // Else it has not said hello yet.
        if (kept.row !== undefined) socket.close(CLOSE_PROTOCOL_ERROR, "nothing is known of it");
        continue;
      }
      rows.delete(kept.row ?? "");
      const link = new ObjectConnection(this, socket, info, keysOfClient(info.clientId, info.channels));
      link.restore(head, kept.asked ?? 0, kept.asks ?? 0);
      this.#links.set(info.connectionId, link);
      this.#core.enroll(link);
    }
    for (const id of rows.keys()) sql.exec("DELETE FROM fanwire_links WHERE id = ?", id);
  }
}

declare const WebSocketPair: new () => Readonly<Record<"0" | "1", Socket>>;
declare const WebSocketRequestResponsePair: new (question: string, answer: string) => object;
