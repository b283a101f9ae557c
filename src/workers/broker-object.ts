// The Durable Object class that applications export. It creates its broker at the first use, and empties its storage when nothing is left.
import { DurableObject } from "cloudflare:workers";
import { unauthorized } from "../base/errors.ts";
import type {
  BroadcastOptions,
  CloseOptions,
  ConnectionOptions,
  DisconnectOptions,
  EphemeralOptions,
  HistoryOptions,
  ListenOptions,
  SendOptions,
  SubscribeOptions,
  UnsubscribeOptions,
} from "../broker/interface.ts";
import { RUNS_HOST, type RunsHost } from "../broker/runs-host.ts";
import { parseData } from "../client/values.ts";
import type { ClientInfo, DisconnectReason } from "../delivery/connection.ts";
import type { Published, Reported, Sent } from "../delivery/delivery-report.ts";
import type { History } from "../engine/history.ts";
import type { EventInput } from "../event/event.ts";
import type { EventInputOf, EventSchemas, EventTypes, SchemaInputs, SchemaOutputs } from "../event/event-map.ts";
import { presentsToken } from "../http/bearer.ts";
import { problem } from "../http/problem.ts";
import type { ListenedEventOf, ListenedOf } from "../log/listened.ts";
import type { BrokerStats } from "../monitoring/stats.ts";
import type { ObjectStorage, Socket } from "./cloudflare.ts";
import type { RpcRequest, RpcResult } from "./object-backend.ts";
import { ObjectBroker, type ObjectOptions } from "./object-broker.ts";

/** The reasons that a Worker may close a socket with. */
const WORKER_REASONS = new Set<string>([
  "client-left",
  "timeout",
  "expired",
  "max-age",
  "write-failed",
  "disconnected",
]);

/**
 * A Durable Object that keeps the log of a broker and delivers its events. Export a class of your own that extends it.
 *
 * @example
 * export class Hub extends BrokerObject {
 *   override options = { retention: { age: 3_600_000 } };
 * }
 */
export class BrokerObject<Env = unknown, Events = unknown, Inputs = Events> extends DurableObject<Env> {
  /** Only for `EventsOf`, and never there. */
  declare readonly "~events"?: EventTypes<Events, Inputs> | undefined;
  /** Options of the broker, read at the first use. */
  readonly options: ObjectOptions = {};
  #broker: ObjectBroker | undefined;
  /** The time of the next alarm that this instance knows of, in epoch milliseconds. */
  #alarmAt = Infinity;

  static {
    // Leads `createRuns(this)` to the broker. It is called each time, because an emptied object creates another broker.
    Object.defineProperty(BrokerObject.prototype, RUNS_HOST, {
      value(this: BrokerObject): RunsHost {
        return this.#open().broker[RUNS_HOST];
      },
    });
  }

  /**
   * Returns the broker, and creates it at the first use. `closing` is a socket whose close woke the object: the runtime no longer lists it.
   */
  #open(closing?: Socket): ObjectBroker {
    // Called with every event: no promise is created if an alarm comes early enough.
    const requestWake = (time: number) => void (time < this.#alarmAt && this.#wakeAt(time));
    return (this.#broker ??= new ObjectBroker(this.ctx, this.options, requestWake, closing));
  }

  /**
   * Publishes an event to every client of this object, or to channels, as `broadcast` of a broker. A report needs a caller inside the object,
   * or `hub()`.
   */
  broadcast(event: EventInputOf<Inputs>, options: BroadcastOptions & { readonly report: true }): Promise<Reported>;
  broadcast(event: EventInputOf<Inputs>, options: BroadcastOptions & EphemeralOptions): Promise<Sent>;
  broadcast(event: EventInputOf<Inputs>, options?: BroadcastOptions): Promise<Published>;
  broadcast(event: EventInput, options?: BroadcastOptions): Promise<Published> {
    return this.#open().broker.broadcast(event, options);
  }

  /** Publishes an event to one client of this object, on all of its connections. */
  broadcastTo(
    clientId: string,
    event: EventInputOf<Inputs>,
    options: SendOptions & { readonly report: true },
  ): Promise<Reported>;
  broadcastTo(
    clientId: string,
    event: EventInputOf<Inputs>,
    options: EphemeralOptions | ConnectionOptions,
  ): Promise<Sent>;
  broadcastTo(clientId: string, event: EventInputOf<Inputs>, options?: SendOptions): Promise<Published>;
  broadcastTo(clientId: string, event: EventInput, options?: SendOptions): Promise<Published> {
    return this.#open().broker.broadcastTo(clientId, event, options);
  }

  /** Adds channels to the open streams of a client id, as `subscribe` of a broker. */
  async subscribe(
    clientId: string,
    channels: string | readonly string[],
    options?: SubscribeOptions,
  ): Promise<{ readonly clients: number; readonly position: string }> {
    return this.#open().broker.subscribe(clientId, channels, options);
  }

  /** Removes channels from the open streams of a client id, as `unsubscribe` of a broker. */
  async unsubscribe(
    clientId: string,
    channels: string | readonly string[],
    options?: UnsubscribeOptions,
  ): Promise<{ readonly clients: number }> {
    return this.#open().broker.unsubscribe(clientId, channels, options);
  }

  /** Ends the connections of a client id. Resolves with their number. */
  async disconnect(clientId: string, options?: DisconnectOptions): Promise<{ readonly clients: number }> {
    return this.#open().broker.disconnect(clientId, options);
  }

  /** Returns the counters and gauges of this object. Counters start at 0 in each new instance. */
  async stats(): Promise<BrokerStats> {
    return this.#open().broker.stats();
  }

  /**
   * Reads a part of the history, as `history` of a broker. A caller outside the object gets a copy, which has `value` if the object has the option
   * `events`.
   */
  async history(options?: HistoryOptions): Promise<History<ListenedEventOf<Events>>> {
    const history: History = await this.#open().broker.history(options);
    if (!this.options.events) return history as History<ListenedEventOf<Events>>;
    // Only what is enumerable is copied.
    const events = history.events.map((event) => ({ ...event, value: parseData(event.data) }));
    return { ...history, events } as History as History<ListenedEventOf<Events>>;
  }

  /** Iterates over published events. For code inside the object: an object with a listener is not evicted. */
  listen(options?: ListenOptions): AsyncIterableIterator<ListenedOf<Events>, undefined> {
    return this.#open().broker.listen(options) as AsyncIterableIterator<ListenedOf<Events>, undefined>;
  }

  /** Returns the connections of this object. For code inside the object. */
  clients(): ClientInfo[] {
    return this.#open().broker.clients();
  }

  /** Ends all streams, as `close` of a broker. The object is open again after its next start. For code inside the object. */
  close(options?: CloseOptions): Promise<void> {
    return this.#open().broker.close(options);
  }

  /** Serves a request of the Worker. Only for `hub()`. */
  async serve(request: RpcRequest): Promise<RpcResult> {
    const broker = this.#open();
    try {
      return { value: await broker.serve(request) };
    } catch (error) {
      if (error instanceof TypeError || error instanceof RangeError)
        return { argumentError: error.message, isRangeError: error instanceof RangeError };
      return { refusal: broker.refuse(error) };
    }
  }

  /** Connects a client for the Worker. Refuses a request without the object's secret, because it may be a visitor's that was passed on. */
  async fetch(request: Request): Promise<Response> {
    const broker = this.#open();
    if (!presentsToken(request, [broker.secret]))
      return problem(unauthorized("Request refused: this object serves only hub() and worker() of fanwire."));
    if (request.headers.get("upgrade") === "websocket") return broker.accept();
    const hello = await request.text();
    // An alarm may have emptied the object while the body arrived.
    return this.#open().stream(request, hello);
  }

  webSocketMessage(socket: Socket, message: unknown): void {
    this.#open().receive(socket, message);
  }

  webSocketClose(socket: Socket, code: number, reason: string): void {
    this.#open(socket).onSocketClosed(
      socket,
      WORKER_REASONS.has(reason) ? (reason as DisconnectReason) : "client-left",
    );
    try {
      socket.close(code, reason);
    } catch {
      // The runtime has already answered the close, or the code is one that `close` does not allow.
    }
  }

  webSocketError(socket: Socket): void {
    this.#open(socket).onSocketClosed(socket, "write-failed");
  }

  /**
   * Drops old events, names and runs, and ends runs whose producer is gone. An object has one alarm only, so an `alarm()` of a subclass calls this one with `super.alarm()`.
   */
  async alarm(): Promise<void> {
    this.#alarmAt = Infinity;
    // The alarm was one of a subclass, or came late to an emptied object.
    if (!this.#broker && !hasTables(this.ctx.storage)) return;
    const broker = this.#open();
    const next = broker.runMaintenance();
    if (next !== Infinity) {
      await this.#wakeAt(Date.now() + next);
    } else if (broker.isEmpty) {
      // An unused object keeps no storage. A client that comes back with an id from before receives a gap.
      this.#broker = undefined;
      this.#alarmAt = Infinity;
      await emptyStorage(this.ctx.storage);
    }
  }

  /** Sets the alarm to `time` (epoch milliseconds), unless one comes earlier. */
  async #wakeAt(time: number): Promise<void> {
    if (time >= this.#alarmAt) return;
    this.#alarmAt = time;
    try {
      const current = await this.ctx.storage.getAlarm();
      if (current === null || current > time) await this.ctx.storage.setAlarm(time);
    } catch (error) {
      this.#alarmAt = Infinity;
      this.#broker?.report(error);
    }
  }
}

/** Drops the broker's tables. Deletes the whole storage if nothing of a subclass is left in it. */
async function emptyStorage(storage: ObjectStorage): Promise<void> {
  for (const table of ["meta", "events", "channels", "names", "connections", "changed", "runs", "run_events"])
    storage.sql.exec(`DROP TABLE IF EXISTS fanwire_${table}`);
  const [others] = storage.sql.exec(
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_cf\\_%' ESCAPE '\\' LIMIT 1",
  );
  if (others || (await storage.list({ limit: 1 })).size > 0) return;
  await storage.deleteAlarm();
  await storage.deleteAll();
}

const hasTables = ({ sql }: ObjectStorage): boolean =>
  [...sql.exec("SELECT 1 FROM sqlite_master WHERE name = 'fanwire_meta'")].length > 0;

/** Returns a {@link BrokerObject} class with these options, typed by its schemas. */
export function brokerObject<const Schemas extends EventSchemas>(
  options: ObjectOptions & { readonly events: Schemas },
): typeof BrokerObject<unknown, SchemaOutputs<Schemas>, SchemaInputs<Schemas>>;
/** Returns a {@link BrokerObject} class with these options. @example export const Hub = brokerObject({ duplicateIds: "replace" }); */
export function brokerObject(options: ObjectOptions): typeof BrokerObject<unknown>;
export function brokerObject(options: ObjectOptions): unknown {
  return class extends BrokerObject {
    override readonly options: ObjectOptions = options;
  };
}
