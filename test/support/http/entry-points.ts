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
import { clientRequest, problemOf, type Scene, scene, type Wish } from "../test-broker.ts";

// The ways into a broker, and what comes of it.

export type ReadDoor = (broker: Broker, request: Request, overrides?: ClientOverrides) => Promise<Response>;
export type WriteDoor = (broker: Broker, request: Request, overrides?: EventOverrides) => Promise<Response>;
export const readDoors: readonly (readonly [string, ReadDoor])[] = [
  ["fetch", (broker, request, { context } = {}) => broker.fetch(request, context)],
  ["clientHandler", (broker, request, overrides) => broker.clientHandler(request, overrides)],
];
export const writeDoors: readonly (readonly [string, WriteDoor])[] = [
  ["fetch", (broker, request, { context } = {}) => broker.fetch(request, context)],
  ["eventHandler", (broker, request, overrides) => broker.eventHandler(request, overrides)],
];

/** A scene whose clients come in by one door. */
export interface Reading {
  readonly stage: Scene;
  readonly door: ReadDoor;
  /** Connects a client that must be let in, and reads what says that it is. */
  enter(broker: Broker, wish?: Wish): Promise<Connection>;
}

/** One test for each door that clients come in by. */
export function reading(what: string, body: (reading: Reading) => Promise<void>): void {
  for (const [name, door] of readDoors) {
    const run = scene(async (stage) => {
      const guests: Connection[] = [];
      const enter = async (broker: Broker, wish: Wish = {}): Promise<Connection> => {
        const abort = new AbortController();
        const guest = new Connection(await door(broker, clientRequest(wish, abort.signal)), abort);
        guests.push(guest);
        await guest.untilControl("ready");
        return guest;
      };
      try {
        await body({ stage, door, enter });
      } finally {
        for (const guest of guests) await guest.leave();
      }
    });
    test(`${name}: ${what}`, run);
  }
}

/** One test for each door that events come in by. */
export function publishing(what: string, body: (stage: Scene, door: WriteDoor) => Promise<void>): void {
  for (const [name, door] of writeDoors)
    test(
      `${name}: ${what}`,
      scene((stage) => body(stage, door)),
    );
}

/** A promise that is settled from outside. */
export function deferred<T>(): { promise: Promise<T>; resolve: (value: T) => void; reject: (error: unknown) => void } {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((settle, fail) => {
    resolve = settle;
    reject = fail;
  });
  return { promise, resolve, reject };
}

export interface Reported {
  readonly stage: ErrorStage;
  readonly error: unknown;
}

/** Status and code of an answer that is a problem; a stream that was given by mistake is left, so that the test fails at once. */
export async function problem(answer: Response): Promise<readonly [number, string]> {
  if (answer.headers.get("content-type") === "application/problem+json")
    return [answer.status, await problemOf(answer)];
  await answer.body?.cancel();
  return [answer.status, "no problem"];
}

/** Nothing came of it: the broker did not even open its log. */
export const expectUntouched = (broker: Broker): void =>
  expect(broker.stats()).toMatchObject({
    clients: 0,
    ids: 0,
    channels: 0,
    pending: 0,
    published: 0,
    engine: "idle",
  });

/** A body that tells how often it was asked for anything; nothing is taken from it before it is read. */
export function witnessedBody(): { readonly init: RequestInit; pulls(): number } {
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

export const HOUR = 3_600_000;
/** Runs `body` as it would be run so many milliseconds later by the clock; no timer knows of it. */
export async function later<T>(ms: number, body: () => Promise<T>): Promise<T> {
  const { now } = Date;
  Date.now = () => now.call(Date) + ms;
  try {
    return await body();
  } finally {
    Date.now = now;
  }
}

export const never: Authorize = () => new Promise<AuthorizeResult>(() => undefined);
export const ANY = { accept: "*/*" };

export const SECRET = "secret detail of the inside";
