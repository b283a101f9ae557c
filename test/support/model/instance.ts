// A simulated process: one broker, and everything that it reports about its connections.
import { type Broker, createBroker, type Engine } from "../../../src/index.ts";
import type { Clock } from "../clock.ts";
import type { ConnectionAttempt } from "./connection-attempt.ts";
import type { HistorySettings } from "./history.ts";

/** A call of `disconnect`. */
interface DisconnectCall {
  readonly at: number;
  readonly id: string;
  readonly barFor: number;
  /** How many connections of this process the id had. */
  readonly connections: number;
  /** The count in the answer. */
  clients?: number;
}

export class Instance {
  readonly process: 0 | 1;
  readonly settings: HistorySettings;
  readonly broker: Broker;
  readonly attempts: ConnectionAttempt[] = [];
  readonly disconnects: DisconnectCall[] = [];
  /** Errors of background work, and calls of hooks that do not fit a connection. */
  readonly errors: string[] = [];
  closing: { readonly at: number; readonly spreadOver: number; doneAt?: number } | undefined;
  readonly #clock: Clock;

  /** `head` returns the rank of the newest event of all. */
  constructor(process: 0 | 1, engine: Engine, settings: HistorySettings, head: () => number, clock: Clock) {
    const { timeout, tolerance, heartbeat, inboxLinger, maxAge, duplicateIds } = settings;
    this.process = process;
    this.settings = settings;
    this.#clock = clock;
    this.broker = createBroker({
      engine,
      timeout,
      tolerance,
      heartbeat,
      inboxLinger,
      maxConnectionAge: maxAge,
      duplicateIds,
      onConnect: ({ client, request }) => {
        const attempt = this.attempts.find((each) => each.request === request);
        if (attempt) attempt.registered = { at: clock.time, info: client, head: head() };
        else this.errors.push("onConnect was called for a request that no client made");
      },
      onDisconnect: ({ client, reason }) => {
        const attempt = this.attempts.find((each) => each.registered?.info.connectionId === client.connectionId);
        if (attempt && !attempt.closed) attempt.closed = { at: clock.time, reason };
        else this.errors.push(`onDisconnect was called for ${client.connectionId}, which is not open`);
      },
      onError: ({ stage, error }) => {
        if (stage !== "overrun" && stage !== "engine") this.errors.push(`${stage}: ${error}`);
      },
    });
  }

  disconnect(id: string, barFor: number): void {
    const connections = this.broker.clients().filter(({ clientId }) => clientId === id).length;
    const call: DisconnectCall = { at: this.#clock.time, id, barFor, connections };
    this.disconnects.push(call);
    this.broker.disconnect(id, { blockFor: barFor }).then(
      ({ clients }) => {
        call.clients = clients;
      },
      // Other processes cannot receive the command while the store is away.
      () => undefined,
    );
  }

  close(spreadOver: number): void {
    const closing: NonNullable<typeof this.closing> = { at: this.#clock.time, spreadOver };
    this.closing = closing;
    void this.broker.close({ spreadOver }).then(() => {
      closing.doneAt = this.#clock.time;
    });
  }
}
