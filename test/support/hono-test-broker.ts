import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import type { BrokerError } from "../../src/index.ts";
import { Connection } from "./clients/connection.ts";
import { type Scene, scene } from "./test-broker.ts";

export interface AppEnv {
  Bindings: { SECRET: string };
  Variables: { user: { name: string; rooms: string[] } };
}
export interface App {
  request(path: string, init?: RequestInit, env?: unknown): Response | Promise<Response>;
}

/** A scene that also takes down the connections made through an app. */
export class HonoScene {
  readonly broker: Scene["broker"];
  readonly #connections: Connection[] = [];

  constructor(stage: Scene) {
    this.broker = (options) => stage.broker(options);
  }

  /** Connects through the app and reads what says so. */
  async join(app: App, path: string, init: RequestInit = {}, env?: unknown): Promise<Connection> {
    const abort = new AbortController();
    const headers = { accept: "text/event-stream", ...(init.headers as Record<string, string>) };
    const answer = await app.request(path, { signal: abort.signal, ...init, headers }, env);
    const connection = new Connection(answer, abort);
    this.#connections.push(connection);
    await connection.untilControl("ready");
    return connection;
  }

  async end(): Promise<void> {
    for (const connection of this.#connections) await connection.leave();
  }
}

export const honoScene = (body: (stage: HonoScene) => Promise<void>): (() => Promise<void>) =>
  scene(async (stage) => {
    const made = new HonoScene(stage);
    try {
      await body(made);
    } finally {
      await made.end();
    }
  });

export const post = (body: BodyInit, headers: Record<string, string> = {}): RequestInit => ({
  method: "POST",
  body,
  headers,
});

/** An app that remembers what its `onError` was given, and answers as Hono would. */
export function watched<E extends { Variables?: object; Bindings?: object } = AppEnv>(): {
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

/** Code, status and name of an error as `app.onError` got it. */
export const shown = (errors: readonly Error[]): unknown[] =>
  errors.map((error) => [
    error instanceof HTTPException && error.status,
    (error.cause as BrokerError | undefined)?.code,
  ]);
