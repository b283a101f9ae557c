import { DurableObject } from "cloudflare:workers";
import { unauthorized } from "../base/errors.ts";
import type {
  BroadcastOptions,
  CloseOptions,
  DisconnectOptions,
  ListenOptions,
  SendOptions,
} from "../broker/broker.ts";
import type { ClientInfo, DisconnectReason } from "../delivery/connection.ts";
import type { Published, Reported } from "../delivery/delivery-report.ts";
import type { Listened } from "../delivery/listener.ts";
import type { EventInput } from "../event/event.ts";
import { presentsToken } from "../http/bearer.ts";
import { problem } from "../http/problem.ts";
import type { BrokerStats } from "../monitoring/stats.ts";
import type { ObjectStorage, Socket } from "./cloudflare.ts";
import type { ObjectAnswer, ObjectCall } from "./hub.ts";
import { ObjectBroker, type ObjectOptions } from "./object-broker.ts";

const REASONS = new Set<string>(["client-left", "timeout", "expired", "max-age", "write-failed", "disconnected"]);

/**
 * The Durable Object that a namespace's events and clients meet in. Export a class of your own that extends it.
 *
 * @example
 * export class Hub extends BrokerObject {
 *   override options = { retention: { age: 3_600_000 } };
 * }
 */
export class BrokerObject<Env = unknown> extends DurableObject<Env> {
  /** Read at the first use. */
  readonly options: ObjectOptions = {};
  #broker: ObjectBroker | undefined;
  /** When an alarm is known to come. */
  #alarmAt = Infinity;

  /** `closing` is a socket whose close woke the object, and that is not among its sockets any more. */
  #open(closing?: Socket): ObjectBroker {
    // Asked with every event: nothing is made where an alarm comes early enough.
    const wakeAt = (time: number) => void (time < this.#alarmAt && this.#wakeAt(time));
    return (this.#broker ??= new ObjectBroker(this.ctx, this.options, wakeAt, closing));
  }

  /** Publishes an event to every client of this object, or to channels. As of `createBroker`; a report is for callers inside, and of `hub()`. */
  broadcast(event: EventInput, options: BroadcastOptions & { readonly report: true }): Promise<Reported>;
  broadcast(event: EventInput, options?: BroadcastOptions): Promise<Published>;
  broadcast(event: EventInput, options?: BroadcastOptions): Promise<Published> {
    return this.#open().broker.broadcast(event, options);
  }

  /** Publishes an event to one recipient of this object. */
  broadcastTo(clientId: string, event: EventInput, options: SendOptions & { readonly report: true }): Promise<Reported>;
  broadcastTo(clientId: string, event: EventInput, options?: SendOptions): Promise<Published>;
  broadcastTo(clientId: string, event: EventInput, options?: SendOptions): Promise<Published> {
    return this.#open().broker.broadcastTo(clientId, event, options);
  }

  /** Ends the connections of an id. */
  async disconnect(clientId: string, options?: DisconnectOptions): Promise<{ readonly clients: number }> {
    return this.#open().broker.disconnect(clientId, options);
  }

  /** What this object counts; counters begin anew when it was evicted. */
  async stats(): Promise<BrokerStats> {
    return this.#open().broker.stats();
  }

  /** What is published. For code inside of the object: an object with somebody who listens is not evicted. */
  listen(options?: ListenOptions): AsyncIterableIterator<Listened, undefined> {
    return this.#open().broker.listen(options);
  }

  /** The connections of this object. For code inside of it. */
  clients(): ClientInfo[] {
    return this.#open().broker.clients();
  }

  /** Ends all streams, as `close` of a broker does; the object is open again after its next start. For code inside of it. */
  close(options?: CloseOptions): Promise<void> {
    return this.#open().broker.close(options);
  }

  /** The Worker's calls. For `hub()` and nobody else. */
  async serve(call: ObjectCall): Promise<ObjectAnswer> {
    const broker = this.#open();
    try {
      return { value: await broker.serve(call) };
    } catch (error) {
      if (error instanceof TypeError || error instanceof RangeError)
        return { mistake: error.message, ofRange: error instanceof RangeError };
      return { refusal: broker.refuse(error) };
    }
  }

  /** The Worker's connections. It proves by the object's secret that it is no visitor's request that was passed on. */
  async fetch(request: Request): Promise<Response> {
    const broker = this.#open();
    if (!presentsToken(request, [broker.secret]))
      return problem(unauthorized("This object answers no requests but those of fanwire's hub() and worker()."));
    if (request.headers.get("upgrade") === "websocket") return broker.accept();
    const hello = await request.text();
    // It may have been emptied meanwhile.
    return this.#open().stream(request, hello);
  }

  webSocketMessage(socket: Socket, message: unknown): void {
    this.#open().receive(socket, message);
  }

  webSocketClose(socket: Socket, code: number, reason: string): void {
    this.#open(socket).onSocketClosed(socket, REASONS.has(reason) ? (reason as DisconnectReason) : "client-left");
    try {
      socket.close(code, reason);
    } catch {
      // The runtime has answered already, or the code is one that none may send.
    }
  }

  webSocketError(socket: Socket): void {
    this.#open(socket).onSocketClosed(socket, "write-failed");
  }

  /** Drops what is old. A subclass that has an alarm of its own calls this one as well: an object has only one. */
  async alarm(): Promise<void> {
    this.#alarmAt = Infinity;
    // It was a subclass's, or a late one.
    if (!this.#broker && !hasTables(this.ctx.storage)) return;
    const broker = this.#open();
    const next = broker.tidy();
    if (next !== Infinity) {
      await this.#wakeAt(Date.now() + next);
    } else if (broker.isEmpty) {
      // Nothing is left behind of a room that nobody uses. Who comes back with an id of before is told of a gap.
      this.#broker = undefined;
      this.#alarmAt = Infinity;
      await empty(this.ctx.storage);
    }
  }

  async #wakeAt(time: number): Promise<void> {
    if (time >= this.#alarmAt) return;
    this.#alarmAt = time;
    try {
      const known = await this.ctx.storage.getAlarm();
      if (known === null || known > time) await this.ctx.storage.setAlarm(time);
    } catch (error) {
      this.#alarmAt = Infinity;
      this.#broker?.report(error);
    }
  }
}

/** Takes away all that is the broker's; and if nothing is left that is the subclass's, the storage itself. */
async function empty(storage: ObjectStorage): Promise<void> {
  for (const table of ["meta", "events", "channels", "names", "connections"])
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

/** A {@link BrokerObject} class with these options. @example export const Hub = brokerObject({ duplicateIds: "replace" }); */
export function brokerObject(options: ObjectOptions): typeof BrokerObject<unknown> {
  return class extends BrokerObject {
    override readonly options: ObjectOptions = options;
  };
}
