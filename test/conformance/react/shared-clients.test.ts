// The clients that components share, without React: how many connections there are, and where they continue. The hooks are tested in browser/react.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { acquire, type Lease, release } from "../../../src/react/shared-clients.ts";
import { type TestSetup, withBroker } from "../../support/test-broker.ts";

/** Waits until a check passes. On a busy machine that may take longer than the second that vitest would wait. */
const eventually = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 10_000 });

const URL = "http://server/connect";
/** Requests that clients have sent: their path and query, and their last id. */
let requests: string[] = [];

/** Runs a test whose clients reach a broker. */
const withNet = (run: (setup: TestSetup, broker: ReturnType<TestSetup["broker"]>) => Promise<void>) =>
  withBroker(async (setup) => {
    const broker = setup.broker();
    vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
      requests.push(decodeURIComponent(url.slice("http://server".length)));
      return broker.fetch(new Request(url, init));
    });
    await run(setup, broker);
  });

beforeEach(() => {
  requests = [];
});
afterEach(() => vi.unstubAllGlobals());

const open = (lease: Lease): Promise<void> => eventually(() => expect(lease.client.state).toBe("open"));
const listen = (lease: Lease, data: unknown[]): (() => void) =>
  lease.client.on("message", (event) => void data.push(event.data));
const microtasks = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1));

test(
  "acquire: the same URL and channels have one client, until the last use has ended",
  withNet(async () => {
    const [first, second] = [acquire(URL, ["a"], undefined), acquire(URL, ["a"], undefined)];
    expect(second.client).toBe(first.client);
    await open(first);
    release(first);
    await microtasks();
    expect(second.client.state).toBe("open");
    // As in StrictMode: a use that ends and begins again at once.
    release(second);
    const third = acquire(URL, ["a"], second);
    await microtasks();
    expect(third.client.state).toBe("open");
    expect(requests).toEqual(["/connect?channel=a"]);
    release(third);
    await microtasks();
    expect(third.client.state).toBe("closed");
    const fourth = acquire(URL, ["a"], undefined);
    expect(fourth.client).not.toBe(third.client);
    release(fourth);
  }),
);

test(
  "acquire: a list of which some channels stay continues the stream, and loses nothing",
  withNet(async (_, broker) => {
    const data: unknown[] = [];
    const first = acquire(URL, ["kept", "old"], undefined);
    const off = listen(first, data);
    await open(first);
    await broker.broadcast("1", { channels: "kept" });
    off();
    release(first);
    const second = acquire(URL, ["kept", "new"], first);
    const offSecond = listen(second, data);
    await broker.broadcast("2", { channels: "kept" });
    await eventually(() => expect(requests).toEqual([expect.anything(), "/subscribe", "/unsubscribe"]));
    await eventually(() => expect(second.client.channels).toEqual(["kept", "new"]));
    await broker.broadcast("3", { channels: "new" });
    await eventually(() => expect(data).toEqual(["1", "2", "3"]));
    expect(second.client).toBe(first.client);
    offSecond();
    release(second);
  }),
);

test(
  "acquire: while others use the old list, another client continues where theirs is",
  withNet(async (_, broker) => {
    const data: unknown[] = [];
    const [stays, moves] = [acquire(URL, ["kept", "old"], undefined), acquire(URL, ["kept", "old"], undefined)];
    const off = listen(stays, []);
    await open(stays);
    await broker.broadcast("1", { channels: "kept" });
    await eventually(() => expect(stays.client.lastEventId).toMatch(/-1$/));
    release(moves);
    const moved = acquire(URL, ["kept", "new"], moves);
    const offMoved = listen(moved, data);
    await broker.broadcast("2", { channels: "kept" });
    await eventually(() => expect(data).toEqual(["2"]));
    expect(moved.client).not.toBe(stays.client);
    await eventually(() => expect(moved.client.channels).toEqual(["kept", "new"]));
    for (const end of [off, offMoved]) end();
    for (const lease of [stays, moved]) release(lease);
  }),
);

test(
  "acquire: other channels only are another stream, so that no event of the old ones is taken for one of theirs",
  withNet(async () => {
    const first = acquire(URL, ["a"], undefined);
    await open(first);
    release(first);
    const second = acquire(URL, ["b"], first);
    expect(second.client).not.toBe(first.client);
    await eventually(() => expect(requests).toEqual(["/connect?channel=a", "/connect?channel=b"]));
    expect(first.client.state).toBe("closed");
    release(second);
  }),
);

test(
  "acquire: a client that has ended is not given to those that come later",
  withNet(async () => {
    const first = acquire(URL, ["a"], undefined);
    await open(first);
    first.client.close();
    const second = acquire(URL, ["a"], undefined);
    expect(second.client).not.toBe(first.client);
    release(first);
    await microtasks();
    // The end of the old one does not forget the new one.
    const third = acquire(URL, ["a"], undefined);
    expect(third.client).toBe(second.client);
    for (const lease of [second, third]) release(lease);
  }),
);
