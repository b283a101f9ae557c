import { type Broker, brokerOf } from "../broker.ts";
import type { ClientInfo, DisconnectReason } from "../client.ts";
import { Core, type Reported } from "../core.ts";
import { type DurableEngineOptions, type DurableLog, durableEngine } from "../engines/durable.ts";
import { BrokerError } from "../errors.ts";
import { keysOfClient } from "../names.ts";
import { type BrokerOptions, resolveOptions } from "../options.ts";
import { randomName } from "../random.ts";
import {
  ECHO,
  FOREIGN,
  type Hello,
  kinds,
  type Pacing,
  type Refusal,
  readWorkerFrame,
  refusalOf,
  writeNote,
} from "./frames.ts";
import type { Call, HubOptions } from "./hub.ts";
import { Link, type LinkHome } from "./link.ts";
import type { ObjectContext, Socket } from "./platform.ts";

/** Options of {@link BrokerObject}: those of `createBroker` that concern events and clients, and those of its log. */
export interface ObjectOptions
  extends Omit<BrokerOptions, "engine" | Exclude<keyof HubOptions, "onError" | "retry">>,
    DurableEngineOptions {}

/** Milliseconds between two flushes. The clock of a deployed Worker stands still while it works, so nothing can be measured. */
const WINDOW = 16;
/** Milliseconds after the last client left that an object looks whether there is anything to keep. */
const LAST_LEFT = 60_000;

/** What a socket carries over hibernation. */
interface Attachment {
  readonly info: ClientInfo;
  readonly asked: number;
  readonly asks: number;
}

/** What an object is once something uses it. */
export class Room implements LinkHome {
  readonly broker: Broker;
  readonly secret: string;
  readonly #ctx: ObjectContext;
  readonly #core: Core;
  readonly #engine: DurableLog;
  readonly #links = new Map<string, Link>();
  #isNoted = false;
  readonly pacing: Pacing;
  readonly epoch: string;

  constructor(ctx: ObjectContext, options: ObjectOptions, wakeAt: (time: number) => void, closing?: Socket) {
    const { retention, logBytes, maxChannels, keyWindow, ...rest } = options;
    this.#ctx = ctx;
    this.#engine = durableEngine(ctx.storage, { retention, logBytes, maxChannels, keyWindow });
    this.#engine.onKept = wakeAt;
    const settings = resolveOptions({ ...rest, engine: this.#engine }, "BrokerObject");
    const { onConnect, onDisconnect } = settings;
    this.#core = new Core(
      {
        ...settings,
        onConnect: (event) => {
          this.#note(true);
          return onConnect?.(event);
        },
        onDisconnect: (event) => {
          if (this.#core.clients.size === 0) {
            this.#note(false);
            this.#engine.onKept?.(Date.now() + LAST_LEFT);
          }
          return onDisconnect?.(event);
        },
      },
      WINDOW,
    );
    this.broker = brokerOf(this.#core);
    const { log } = this.#core.open();
    this.epoch = log.epoch;
    const { heartbeat, timeout, tolerance, maxAge, retry, announce } = settings;
    const quiet = announce ? log.retention.age / 2 : Infinity;
    this.pacing = { heartbeat, timeout, tolerance, maxAge, retry, quiet };
    const meta = this.#recall();
    this.secret = meta.get("secret") as string;
    this.#isNoted = meta.has("connected");
    this.#restore(log.head, closing);
    // They were lost with the instance before this one, and are about to come back. Nobody knows who they are.
    if (this.#isNoted && this.#core.clients.size === 0) this.#core.expectReturns();
  }

  get fanout(): Core["fanout"] {
    return this.#core.fanout;
  }

  get announcer(): Core["announcer"] {
    return this.#core.announcer;
  }

  get stalled(): Core["stalled"] {
    return this.#core.stalled;
  }

  get departing(): Core["departing"] {
    return this.#core.departing;
  }

  part(link: Link): void {
    this.#core.part(link);
  }

  retire(link: Link, reason: DisconnectReason): void {
    this.#core.retire(link, reason);
  }

  /** Nobody reads, and nothing is kept. */
  get isEmpty(): boolean {
    const { fanout } = this.#core;
    return fanout.channels === 0 && fanout.log.size === 0 && this.#ctx.getWebSockets().length === 0;
  }

  tidy(): number {
    const next = this.#engine.tidy();
    for (const link of this.#links.values()) link.pulse();
    if (this.#core.isExpecting) return Math.min(next, LAST_LEFT);
    // Those who did not come back are not expected any more.
    if (this.#core.clients.size === 0) this.#note(false);
    return next;
  }

  async serve(call: Call): Promise<unknown> {
    const core = this.#core;
    if (call.do === "secret") return this.secret;
    if (call.do === "barred") return core.isBarred(call.clientId);
    if (call.do === "publish") return core.publish(call.keys, call.event, call.options);
    if (call.do === "disconnect") return this.broker.disconnect(call.clientId, call.options);
    if (call.do === "stats") return this.broker.stats();
    const { event, options } = call;
    const { report, ...published } = (await (call.do === "broadcast"
      ? this.broker.broadcast(event, options)
      : this.broker.broadcastTo(call.clientId, event, options))) as Reported;
    return report === undefined ? published : { ...published, report: () => report };
  }

  /** One end of a socket for the Worker; the other one outlives this instance. */
  accept(): Response {
    const [theirs, ours] = Object.values(new WebSocketPair());
    this.#ctx.setWebSocketAutoResponse(new WebSocketRequestResponsePair(...ECHO));
    this.#ctx.acceptWebSocket(ours as Socket);
    return new Response(null, { status: 101, webSocket: theirs } as ResponseInit);
  }

  /** A client whose stream is held here. */
  async stream(request: Request, hello: string): Promise<Response> {
    try {
      const { admission, clientId, start } = readWorkerFrame(hello) as Hello;
      const stream = await this.#letIn(clientId, (place) =>
        this.#core.connect(request, admission, clientId, start, place),
      );
      return stream ? new Response(stream) : Response.json({}, { status: 503 });
    } catch (error) {
      return Response.json(this.refuse(error), { status: 503 });
    }
  }

  receive(socket: Socket, message: unknown): void {
    const frame = readWorkerFrame(message);
    const link = this.#linkOf(socket);
    if (!frame || (frame.kind === "hello" && link)) socket.close(FOREIGN, "foreign frame");
    else if (frame.kind === "hello") void this.#admit(socket, frame);
    // Of one that has ended there may be something on its way.
    else if (frame.kind === "ack") link?.acknowledged(frame);
    else link?.refill(frame);
  }

  closed(socket: Socket, reason: DisconnectReason): void {
    this.#linkOf(socket)?.lost(reason);
  }

  save(link: Link): void {
    const { info, asked, asks, socket } = link;
    const attachment: Attachment = { info, asked, asks };
    try {
      socket.serializeAttachment(attachment);
    } catch {
      // Its channels are too many for what a socket carries.
      const { connectionId } = info;
      this.#ctx.storage.sql.exec(
        "INSERT OR IGNORE INTO fanwire_links VALUES (?, ?)",
        connectionId,
        JSON.stringify(info),
      );
      socket.serializeAttachment({ row: connectionId, asked, asks });
    }
    this.#links.set(info.connectionId, link);
  }

  forget(link: Link): void {
    const { connectionId, socket } = link;
    this.#links.delete(connectionId);
    const { row } = (socket.deserializeAttachment() ?? {}) as { row?: string };
    if (row !== undefined) this.#ctx.storage.sql.exec("DELETE FROM fanwire_links WHERE id = ?", row);
  }

  async #admit(socket: Socket, { admission, clientId, start, url, again }: Hello): Promise<void> {
    try {
      // The connection that it was is over, if that did not show yet.
      if (again !== undefined) this.#links.get(again)?.lost("client-left");
      const { subject, channels } = admission;
      const arrival = { request: new Request(url), subject, clientId, channels, start, again: again !== undefined };
      const link = await this.#letIn(clientId, (place) =>
        this.#core.register(arrival, place, (info, keys) => new Link(this, socket, info, keys)),
      );
      if (!link) socket.send(writeNote(kinds.refusal, {}));
    } catch (error) {
      socket.send(writeNote(kinds.refusal, this.refuse(error)));
    }
  }

  /** What is told of an error; of one that is not the broker's that is nothing, and `onError` hears of it. */
  refuse(error: unknown): Refusal {
    if (!(error instanceof BrokerError)) void this.#core.background("request", error);
    return refusalOf(error);
  }

  /** Lets one in if there is room; `undefined` for one that is turned away. */
  async #letIn<T>(clientId: string, enter: (place: () => void) => Promise<T | undefined>): Promise<T | undefined> {
    if (this.#core.isBarred(clientId)) return undefined;
    const place = this.#core.reserve();
    if (!place) throw new BrokerError("at-capacity", "Connection refused: there are too many clients.");
    try {
      return await enter(place);
    } finally {
      place();
    }
  }

  #linkOf(socket: Socket): Link | undefined {
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

  /** Writes down whether anybody is connected, for the instance that comes after a crash. */
  #note(isConnected: boolean): void {
    if (isConnected === this.#isNoted) return;
    this.#isNoted = isConnected;
    const { sql } = this.#ctx.storage;
    if (isConnected) sql.exec("INSERT OR REPLACE INTO fanwire_meta VALUES ('connected', 1)");
    else sql.exec("DELETE FROM fanwire_meta WHERE name = 'connected'");
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
      // It has not said hello yet.
      if (!info) continue;
      rows.delete(kept.row ?? "");
      const link = new Link(this, socket, info, keysOfClient(info.clientId, info.channels));
      link.goOn(head, kept.asked ?? 0, kept.asks ?? 0);
      this.#links.set(info.connectionId, link);
      this.#core.enroll(link);
    }
    for (const id of rows.keys()) sql.exec("DELETE FROM fanwire_links WHERE id = ?", id);
  }
}

declare const WebSocketPair: new () => Readonly<Record<"0" | "1", Socket>>;
declare const WebSocketRequestResponsePair: new (question: string, answer: string) => object;
