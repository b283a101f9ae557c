import { expect, test } from "vitest";
import { FlushScheduler } from "../../../src/delivery/flush-scheduler.ts";
import { AuthorizeQueue } from "../../../src/http/authorize-queue.ts";
import { neverAnswers } from "../../support/http/entry-points.ts";
import { clientRequest, codeOf, turn } from "../../support/test-broker.ts";
import { withDurableObject } from "../../support/workerd.ts";

// Behaviour where a clock or a timer cannot be trusted.

/** Far longer than a test runs. */
const LONG_MS = 1_000_000;

test(
  "FlushScheduler: with a fixed window the first flush runs at once, the next one after the window, and close() runs it at once",
  withDurableObject(async () => {
    let flushes = 0;
    const scheduler = new FlushScheduler(() => flushes++, LONG_MS);
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
  "AuthorizeQueue: a request whose code was stopped before its deadline does not keep its slot for ever",
  withDurableObject(async () => {
    const queue = new AuthorizeQueue(1, 1_000);
    const access = { context: undefined, action: "connect", channels: [], clientId: undefined } as const;
    const { setTimeout: original } = globalThis;
    // The timer never fires, as on Workers after a request was ended.
    Object.assign(globalThis, { setTimeout: () => 0 });
    void queue.run(neverAnswers, { ...access, request: clientRequest() });
    Object.assign(globalThis, { setTimeout: original });
    const ask = (): Promise<string> => codeOf(queue.run(() => true, { ...access, request: clientRequest() }));
    expect([await ask(), queue.pending]).toEqual(["at-capacity", 1]);

    const { now } = performance;
    performance.now = () => now.call(performance) + 2_000;
    try {
      expect([await ask(), queue.pending]).toEqual(["none", 0]);
    } finally {
      performance.now = now;
    }
  }),
);
