// One client on one broker: publishes events, and records what the client shows.
import type { Server, TestBroker } from "../support/servers/server.ts";
import type { TestBrokerOptions } from "../wire/servers/app.ts";
import type { ClientEvent } from "./client.ts";
import type { Client } from "./clients.ts";
import type { Start } from "./runtimes.ts";
import { Tap } from "./tap.ts";

/** The id that every client connects with. Each has a broker of its own. */
export const CLIENT_ID = "me";

interface Published {
  readonly type: string;
  readonly id: string;
  readonly data: string;
}

export class Session {
  readonly tap: Tap;
  broker: TestBroker;
  /** Every event that the client has shown. */
  readonly events: ClientEvent[] = [];
  readonly published: Published[] = [];
  /** Whether the client has ended by itself. */
  hasStopped = false;

  readonly #client: Client;
  #close: () => unknown = () => undefined;
  #wake: (() => void)[] = [];

  private constructor(client: Client, broker: TestBroker, tap: Tap) {
    this.#client = client;
    this.broker = broker;
    this.tap = tap;
    tap.onPassed = () => this.#notify();
  }

  /** Creates a broker and connects the client to it. */
  static async open(client: Client, start: Start, server: Server, options: TestBrokerOptions = {}): Promise<Session> {
    const broker = await server.createBroker({ retry: 100, maxBodyBytes: 1024 * 1024, ...options });
    const session = new Session(client, broker, await Tap.start(server.port));
    session.#close = await start(
      client,
      session.tap.url + broker.path(`connect?id=${CLIENT_ID}`),
      (event) => {
        session.events.push(event);
        session.#notify();
      },
      () => {
        session.hasStopped = true;
        session.#notify();
      },
    );
    await session.untilConnected(1);
    return session;
  }

  async close(): Promise<void> {
    await this.#close();
    this.tap.close();
  }

  /** Data of the published events that the client has shown, in its order. */
  get received(): string[] {
    return this.events.filter(({ type }) => !type.startsWith("fanwire-")).map(({ data }) => data);
  }

  /** Data of the control events of this name that the client has shown. */
  control(name: string): unknown[] {
    return this.events.filter(({ type }) => type === `fanwire-${name}`).map(({ data }) => JSON.parse(data));
  }

  /** Events that nobody published, and events without data. */
  get strays(): ClientEvent[] {
    return this.events.filter(({ type, id, data }) => {
      if (data === "") return true;
      if (type.startsWith("fanwire-")) return false;
      return !this.published.some((each) => each.type === type && each.data === data && each.id === (id ?? each.id));
    });
  }

  /** Publishes an event, and returns when the broker has it. */
  async publish(text: string, type = "message"): Promise<void> {
    const event = this.#client.encode?.(text) ?? { type, data: text };
    const query = event.type === "message" ? "" : `?type=${event.type}`;
    const response = await this.broker.publish(event.data, query);
    if (response.status !== 200) throw new Error(`The event was not published: ${await response.text()}`);
    const { id } = (await response.json()) as { id: string };
    this.published.push({ type: event.type, id, data: text });
  }

  /** Waits until the client has shown the event with this data, or has stopped. */
  untilReceived(data: string): Promise<void> {
    return this.until(() => this.hasStopped || this.events.some((event) => event.data === data));
  }

  /** Waits until `holds` returns true. Asks it again at every event and whenever bytes have passed. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds()) await new Promise<void>((resolve) => this.#wake.push(resolve));
  }

  /** Waits until the broker has counted `count` connections of the client, or the client has stopped. */
  async untilConnected(count: number): Promise<void> {
    await this.broker.untilState(({ connected }) => this.hasStopped || connected >= count);
  }

  #notify(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}
