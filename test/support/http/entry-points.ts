// The entry points of a broker: functions that a client's request or an event comes in by. Also tools for tests of what happens there.
import { expect, test } from "vitest";
import type {
  Authorize,
  AuthorizeResult,
  Broker,
  ClientOverrides,
  ErrorStage,
  EventOverrides,
} from "../../../src/index.ts";
import { Connection } from "../clients/connection.ts";
import { type ConnectOptions, clientRequest, problemOf, type TestSetup, withBroker } from "../test-broker.ts";

export type ReadEntryPoint = (broker: Broker, request: Request, overrides?: ClientOverrides) => Promise<Response>;
export type PublishEntryPoint = (broker: Broker, request: Request, overrides?: EventOverrides) => Promise<Response>;
export const readEntryPoints: readonly (readonly [string, ReadEntryPoint])[] = [
  ["fetch", (broker, request, { context } = {}) => broker.fetch(request, context)],
  ["clientHandler", (broker, request, overrides) => broker.clientHandler(request, overrides)],
];
export const publishEntryPoints: readonly (readonly [string, PublishEntryPoint])[] = [
  ["fetch", (broker, request, { context } = {}) => broker.fetch(request, context)],
  ["eventHandler", (broker, request, overrides) => broker.eventHandler(request, overrides)],
];

/** The setup of a test whose clients connect through one entry point. */
export interface ReadingSetup {
  readonly setup: TestSetup;
  readonly entryPoint: ReadEntryPoint;
  /** Connects a client that must be accepted, and reads its `fanwire-ready`. */
  connect(broker: Broker, options?: ConnectOptions): Promise<Connection>;
}

/** Defines one test for each entry point of clients. */
export function testReading(name: string, body: (reading: ReadingSetup) => Promise<void>): void {
  for (const [entryPointName, entryPoint] of readEntryPoints) {
    const run = withBroker(async (setup) => {
      const connections: Connection[] = [];
      const connect = async (broker: Broker, options: ConnectOptions = {}): Promise<Connection> => {
        const abort = new AbortController();
        const connection = new Connection(await entryPoint(broker, clientRequest(options, abort.signal)), abort);
        connections.push(connection);
        await connection.untilControl("ready");
        return connection;
      };
      try {
        await body({ setup, entryPoint, connect });
      } finally {
        for (const connection of connections) await connection.leave();
      }
    });
    test(`${entryPointName}: ${name}`, run);
  }
}

/** Defines one test for each entry point of events. */
export function testPublishing(
  name: string,
  body: (setup: TestSetup, entryPoint: PublishEntryPoint) => Promise<void>,
): void {
  for (const [entryPointName, entryPoint] of publishEntryPoints)
    test(
      `${entryPointName}: ${name}`,
      withBroker((setup) => body(setup, entryPoint)),
    );
}

/** Returns a promise and the functions that settle it. */
export function deferred<T>(): { promise: Promise<T>; resolve: (value: T) => void; reject: (error: unknown) => void } {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((settle, fail) => {
    resolve = settle;
    reject = fail;
  });
  return { promise, resolve, reject };
}

export interface ReportedError {
  readonly stage: ErrorStage;
  readonly error: unknown;
}

/** Returns the status and code of a problem response. Cancels the stream of any other response, so that the test fails at once. */
export async function statusAndCode(response: Response): Promise<readonly [number, string]> {
  if (response.headers.get("content-type") === "application/problem+json")
    return [response.status, await problemOf(response)];
  await response.body?.cancel();
  return [response.status, "no problem"];
}

/** Expects that a broker did nothing, and did not even open its log. */
export const expectUnused = (broker: Broker): void =>
  expect(broker.stats()).toMatchObject({
    clients: 0,
    ids: 0,
    channels: 0,
    pending: 0,
    published: 0,
    engine: "idle",
  });

/** Returns a request body that counts how often it is read. Nothing is read in advance. */
export function createCountedBody(): { readonly init: RequestInit; pulls(): number } {
  let pulls = 0;
  const body = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        pulls++;
        controller.enqueue(new TextEncoder().encode("from the body"));
        controller.close();
      },
    },
    { highWaterMark: 0 },
  );
  return { init: { body, duplex: "half" } as RequestInit, pulls: () => pulls };
}

/** Returns a body that has sent `text`. The test sends the rest, or ends it. */
export function createSlowBody(text: string): {
  readonly init: RequestInit;
  /** Sends more. Returns whether somebody still reads the body. */
  send(more: string): boolean;
  end(): void;
  /** Whether the body was cancelled. */
  cancelled(): boolean;
} {
  let isCancelled = false;
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  const send = (more: string): boolean => {
    if (isCancelled) return false;
    controller?.enqueue(new TextEncoder().encode(more));
    return true;
  };
  const body = new ReadableStream<Uint8Array>({
    start(created) {
      controller = created;
      send(text);
    },
    cancel() {
      isCancelled = true;
    },
  });
  const init = { body, duplex: "half" } as RequestInit;
  return { init, send, end: () => controller?.close(), cancelled: () => isCancelled };
}

export const HOUR_MS = 3_600_000;
/** Runs `body` while `Date.now` is ahead by a number of milliseconds. Timers are not affected. */
export async function withClockAhead<T>(ms: number, body: () => Promise<T>): Promise<T> {
  const { now } = Date;
  Date.now = () => now.call(Date) + ms;
  try {
    return await body();
  } finally {
    Date.now = now;
  }
}

export const neverAnswers: Authorize = () => new Promise<AuthorizeResult>(() => undefined);
export const ACCEPT_ANY = { accept: "*/*" };

/** A text of an internal error, which no client may receive. */
export const SECRET = "secret detail of the inside";
