// `withHonoBroker` gives a test brokers behind a Hono app, and clients that connect through the app.
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import type { BrokerError } from "../../src/index.ts";
import { Connection } from "./clients/connection.ts";
import { type TestSetup, withBroker } from "./test-broker.ts";

export interface AppEnv {
  Bindings: { SECRET: string };
  Variables: { user: { name: string; rooms: string[] } };
}
export interface App {
  request(path: string, init?: RequestInit, env?: unknown): Response | Promise<Response>;
}

/** Creates the brokers of one test, and connects clients through an app. */
export class HonoTestSetup {
  readonly broker: TestSetup["broker"];
  readonly #connections: Connection[] = [];

  constructor(setup: TestSetup) {
    this.broker = (options) => setup.broker(options);
  }

  /** Connects a client through the app, and reads its `fanwire-ready`. */
  async join(app: App, path: string, init: RequestInit = {}, env?: unknown): Promise<Connection> {
    const abort = new AbortController();
    const headers = { accept: "text/event-stream", ...(init.headers as Record<string, string>) };
    const response = await app.request(path, { signal: abort.signal, ...init, headers }, env);
    const connection = new Connection(response, abort);
    this.#connections.push(connection);
    await connection.untilControl("ready");
    return connection;
  }

  /** Ends all connections. */
  async close(): Promise<void> {
    for (const connection of this.#connections) await connection.leave();
  }
}

/** Returns a test function that calls `body` with a setup, and closes the setup afterwards. */
export const withHonoBroker = (body: (setup: HonoTestSetup) => Promise<void>): (() => Promise<void>) =>
  withBroker(async (testSetup) => {
    const setup = new HonoTestSetup(testSetup);
    try {
      await body(setup);
    } finally {
      await setup.close();
    }
  });

export const post = (body: BodyInit, headers: Record<string, string> = {}): RequestInit => ({
  method: "POST",
  body,
  headers,
});

/** Returns an app that records the errors of its `onError`, and answers as Hono does by default. */
export function createRecordingApp<E extends { Variables?: object; Bindings?: object } = AppEnv>(): {
  app: Hono<E>;
  errors: Error[];
} {
  const errors: Error[] = [];
  const app = new Hono<E>();
  app.onError((error, c) => {
    errors.push(error);
    if (!(error instanceof HTTPException)) return c.text("not an HTTPException", 500);
    return error.getResponse();
  });
  return { app, errors };
}

/** Returns the status and code of each error that `app.onError` received. */
export const statusesAndCodes = (errors: readonly Error[]): unknown[] =>
  errors.map((error) => [
    error instanceof HTTPException && error.status,
    (error.cause as BrokerError | undefined)?.code,
  ]);
