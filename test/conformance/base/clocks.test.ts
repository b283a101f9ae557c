import { expect, test } from "vitest";
import { FlushScheduler } from "../../../src/delivery/flush-scheduler.ts";
import { AuthorizeQueue } from "../../../src/http/authorize-queue.ts";
import { never } from "../../support/http/entry-points.ts";
import { clientRequest, codeOf, turn } from "../../support/test-broker.ts";
import { inside } from "../../support/workerd.ts";

// What holds where a clock or a timer cannot be trusted.

const AN_AGE = 1_000_000;

test(
  "FlushScheduler: with a fixed window the first flush runs at once, the next one after the window, and close() runs it at once",
  inside(async () => {
    let flushes = 0;
    const scheduler = new FlushScheduler(() => flushes++, AN_AGE);
    const turns = async (): Promise<number> => {
      for (let count = 0; count < 5; count++) await turn();
      return flushes;
    };
    scheduler.request();
    expect(await turns()).toBe(1);
    scheduler.request();
    expect(await turns()).toBe(1);
    scheduler.close();
    expect(flushes).toBe(2);
  }),
);

test(
  "maxPending: a request whose code was ended before its deadline does not keep its place for ever",
  inside(async () => {
    const gate = new AuthorizeQueue(1, 1_000);
    const wish = { context: undefined, action: "connect", channels: [], clientId: undefined } as const;
    const { setTimeout: real } = globalThis;
    // Its timer never fires, as on Workers when a request is ended.
    Object.assign(globalThis, { setTimeout: () => 0 });
    void gate.run(never, { ...wish, request: clientRequest() });
    Object.assign(globalThis, { setTimeout: real });
    const ask = (): Promise<string> => codeOf(gate.run(() => true, { ...wish, request: clientRequest() }));
    expect([await ask(), gate.pending]).toEqual(["at-capacity", 1]);

    const { now } = performance;
    performance.now = () => now.call(performance) + 2_000;
    try {
      expect([await ask(), gate.pending]).toEqual(["none", 0]);
    } finally {
      performance.now = now;
    }
  }),
);
