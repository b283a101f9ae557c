import { type Broker, createBroker, type Engine } from "../../../src/index.ts";
import type { Clock } from "../clock.ts";
import type { Setting } from "./history.ts";
import type { Visit } from "./visit.ts";

/** A process: one broker, and what it said of its clients. */
export class Instance {
  readonly process: 0 | 1;
  readonly setting: Setting;
  readonly broker: Broker;
  readonly visits: Visit[] = [];
  /** Each call of `disconnect`. */
  readonly disconnects: {
    readonly at: number;
    readonly id: string;
    readonly for: number;
    /** The connections that there were of it. */
    readonly connections: number;
    clients?: number;
  }[] = [];
  /** What it reported that nobody waited for. */
  readonly errors: string[] = [];
  closing: { readonly at: number; readonly over: number; doneAt?: number } | undefined;
  readonly #clock: Clock;

  constructor(process: 0 | 1, engine: Engine, setting: Setting, head: () => number, clock: Clock) {
    const { timeout, tolerance, heartbeat, inboxLinger, maxAge, duplicateIds } = setting;
    this.process = process;
    this.setting = setting;
    this.#clock = clock;
    const registered = (connectionId: string): Visit | undefined =>
      this.visits.find((visit) => visit.registered?.info.connectionId === connectionId);
    this.broker = createBroker({
      engine,
      timeout,
      tolerance,
      heartbeat,
      inboxLinger,
      maxConnectionAge: maxAge,
      duplicateIds,
      onConnect: ({ client, request }) => {
        const visit = this.visits.find((each) => each.request === request);
        if (visit) visit.registered = { at: clock.time, info: client, head: head() };
        else this.errors.push("somebody connected who did not ask for it");
      },
      onDisconnect: ({ client, reason }) => {
        const visit = registered(client.connectionId);
        if (visit && !visit.gone) visit.gone = { at: clock.time, reason };
        else this.errors.push(`${client.connectionId} was gone before`);
      },
      onError: ({ stage, error }) => {
        if (stage !== "overrun" && stage !== "engine") this.errors.push(`${stage}: ${error}`);
      },
    });
  }

  disconnect(id: string, barFor: number): void {
    const connections = this.broker.clients().filter(({ clientId }) => clientId === id).length;
    const call: (typeof this.disconnects)[number] = { at: this.#clock.time, id, for: barFor, connections };
    this.disconnects.push(call);
    this.broker.disconnect(id, { blockFor: barFor }).then(
      ({ clients }) => {
        call.clients = clients;
      },
      // Others cannot be told while the store is away.
      () => undefined,
    );
  }

  close(over: number): void {
    const closing: NonNullable<typeof this.closing> = { at: this.#clock.time, over };
    this.closing = closing;
    void this.broker.close({ spreadOver: over }).then(() => {
      closing.doneAt = this.#clock.time;
    });
  }
}
