// `broker.history()` and `GET /history`: bounded parts of what is retained.
import { expect, test } from "vitest";
import type { Broker, BrokerOptions, History, HistoryOptions } from "../../../src/index.ts";
import { codeOf, type TestBrokerOptions, withBroker } from "../../support/test-broker.ts";

const dataOf = ({ events }: History): string[] => events.map(({ data }) => data);

async function publish(broker: Broker, data: readonly string[], channels?: string | string[]): Promise<string[]> {
  const ids: string[] = [];
  for (const each of data) ids.push((await broker.broadcast(each, channels ? { channels } : {})).id);
  return ids;
}

const numbers = (count: number): string[] => Array.from({ length: count }, (_, n) => `${n}`);

test(
  "history: the events of its channels, in order, each once, in the form of listen()",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await broker.broadcast({ event: "news", data: "a\r\nb" }, { channels: ["a", "b"] });
    await publish(broker, ["elsewhere"], "c");
    await publish(broker, ["for everybody"]);
    const [id] = await publish(broker, ["2"], ["b", "c"]);
    const { events, gaps, position, more } = await broker.history({ channels: ["a", "b"] });
    expect(events).toEqual([
      { type: "event", id: expect.any(String), event: "news", data: "a\nb", channels: ["a", "b"] },
      { type: "event", id, data: "2", channels: ["b", "c"] },
    ]);
    expect({ gaps, position, more }).toEqual({ gaps: [], position: id, more: false });
    expect(dataOf(await broker.history({ channels: "c" }))).toEqual(["elsewhere", "2"]);
    expect(dataOf(await broker.history())).toEqual(["for everybody"]);
    expect(await broker.history({ channels: "none" })).toMatchObject({
      events: [],
      gaps: [],
      more: false,
      position: id,
    });
    expect(broker.stats()).toMatchObject({ clients: 0, channels: 0, sent: 0, replayed: 0 });
  }),
);

test(
  "history: parts of any limit are the whole history, each event once",
  withBroker(async (setup) => {
    const broker = setup.broker();
    for (const data of numbers(25)) await broker.broadcast(data, { channels: Number(data) % 3 ? "a" : ["a", "b"] });
    await publish(broker, ["other"], "x");
    for (const limit of [1, 2, 7, 24, 25, 26, 1_000]) {
      const all: string[] = [];
      let parts = 0;
      for (let after: string | undefined; ; ) {
        const part: History = await broker.history({ channels: ["b", "a"], limit, ...(after ? { after } : {}) });
        expect(part.events.length).toBeLessThanOrEqual(limit);
        expect(part.gaps).toEqual([]);
        all.push(...dataOf(part));
        parts++;
        if (!part.more) break;
        after = part.position;
      }
      expect(all).toEqual(numbers(25));
      expect(parts).toBe(Math.ceil(25 / limit));
    }
  }),
);

test(
  "history: a stream continues exactly at its position, whatever is published in between",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await publish(broker, ["1", "2", "3"], "a");
    const whole = await broker.history({ channels: "a" });
    const part = await broker.history({ channels: "a", limit: 2 });
    await publish(broker, ["4"], "a");
    for (const [{ position, events }, rest] of [
      [whole, ["4"]],
      [part, ["3", "4"]],
    ] as const) {
      const client = await setup.connect(broker, { channel: "a", lastEventId: position });
      await client.untilData("4");
      expect([events.length + client.data.length, client.data, client.control("gap")]).toEqual([4, rest, []]);
    }
  }),
);

test(
  "history: a limit of 0 reads nothing and returns the head",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const empty = await broker.history({ limit: 0 });
    expect(empty).toEqual({ events: [], gaps: [], position: expect.stringMatching(/^[a-z0-9]+-0$/), more: false });
    const [, id] = await publish(broker, ["1", "2"], "a");
    expect(await broker.history({ channels: "b", limit: 0 })).toEqual({ ...empty, position: id });
    expect(await broker.history({ channels: "a", limit: 0, after: "unknown-1" })).toEqual({ ...empty, position: id });
  }),
);

test(
  "history: what is missing after a position is a gap; the earliest retained event is a beginning without one",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { events: 2 } } });
    const [first, , third, , fifth] = await publish(broker, ["1", "2", "3", "4", "5"], "a");
    const after = await broker.history({ channels: "a", after: first as string });
    expect([dataOf(after), after.gaps]).toEqual([
      ["4", "5"],
      [{ type: "gap", id: third, channels: ["a"], after: first, through: third }],
    ]);
    const earliest = await broker.history({ channels: "a" });
    expect([dataOf(earliest), earliest.gaps]).toEqual([["4", "5"], []]);
    for (const unknown of ["anotherepoch-3", "no id", `${first}000`]) {
      const history = await broker.history({ channels: "a", after: unknown });
      expect(dataOf(history)).toEqual(["4", "5"]);
      expect(history.gaps).toMatchObject([{ type: "gap", channels: ["a"], after: null }]);
      expect(history.position).toBe(fifth);
    }
  }),
);

test(
  "history: about 1 MiB is a part, and one larger event is returned alone",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxEventBytes: 3_000_000 });
    const sizes = [400_000, 400_000, 400_000, 1_500_000, 10, 10];
    for (const size of sizes) await broker.broadcast("x".repeat(size), { channels: "a" });
    const parts: number[][] = [];
    for (let after: string | undefined; ; ) {
      const part = await broker.history({ channels: "a", ...(after ? { after } : {}) });
      parts.push(dataOf(part).map(({ length }) => length));
      if (!part.more) break;
      after = part.position;
    }
    expect(parts).toEqual([[400_000, 400_000], [400_000], [1_500_000], [10, 10]]);
  }),
);

test(
  "history: expired events are not in it",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { age: 50 } } });
    await publish(broker, ["old"], "a");
    await new Promise((resolve) => setTimeout(resolve, 80));
    expect(dataOf(await broker.history({ channels: "a" }))).toEqual([]);
  }),
);

test.each<[options: unknown, error: string, message: RegExp]>([
  [{ limit: -1 }, "RangeError", /limit must be from 0 to 1000, not -1/],
  [{ limit: 1_001 }, "RangeError", /limit/],
  [{ limit: 1.5 }, "RangeError", /limit/],
  [{ limit: Number.NaN }, "RangeError", /limit/],
  [{ limit: "5" }, "RangeError", /limit/],
  [{ after: 5 }, "TypeError", /after must be an id, not 5/],
  [{ after: null }, "TypeError", /after/],
  [{ from: "latest" }, "TypeError", /from must be "earliest"/],
  [{ channel: "a" }, "TypeError", /channel/],
  [{ lastEventId: "a-1" }, "TypeError", /lastEventId/],
  [{ channels: "a\nb" }, "bad-channel", /Channel name/],
  [{ channels: [] }, "bad-channel", /the list is empty/],
])("history: refuses %o", (options, error, message) =>
  withBroker(async (setup) => {
    const broker = setup.broker();
    const refused = broker.history(options as HistoryOptions);
    await expect(refused).rejects.toThrow(message);
    expect(await codeOf(refused)).toBe(error);
  })(),
);

test(
  "history: an aborted signal and a closed broker end it",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await publish(broker, ["1"]);
    const reason = new Error("no longer wanted");
    await expect(broker.history({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    await broker.close();
    expect(await codeOf(broker.history())).toBe("closed");
  }),
);

const HISTORY = { paths: { history: "/history" } };
const get = (broker: Broker, query = "", init: RequestInit = {}): Promise<Response> =>
  broker.fetch(new Request(`https://fanwire.test/history${query}`, init));

/** Runs a test with a broker whose log has events for everybody, in two channels and in an inbox. */
const withEvents = (options: TestBrokerOptions, body: (broker: Broker) => Promise<void>): (() => Promise<void>) =>
  withBroker(async (setup) => {
    const broker = setup.broker({ ...HISTORY, ...options });
    const ann = await setup.join(broker, { id: "ann", overrides: { authorize: () => true } });
    await publish(broker, ["all"]);
    await publish(broker, ["a1", "a2"], "a");
    await publish(broker, ["b1"], "b");
    await broker.broadcastTo("ann", "inbox");
    await ann.leave();
    await body(broker);
  });

test(
  "GET /history: is off unless paths.history is set",
  withBroker(async (setup) => {
    const response = await get(setup.broker());
    expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([404, "not-found"]);
    expect(() => setup.broker({ paths: { history: "history" } })).toThrow(/a path must begin with \//);
  }),
);

test(
  "GET /history: the channels that are asked for, after a position, within a limit",
  withEvents({}, async (broker) => {
    const response = await get(broker, "?channel=a&limit=1");
    expect(response.headers.get("cache-control")).toBe("no-store");
    const part = (await response.json()) as History;
    expect([dataOf(part), part.more, part.position]).toEqual([["a1"], true, part.events[0]?.id]);
    const rest = (await (
      await get(broker, `?channel=a&channel=b&after=${part.position}&from=earliest`)
    ).json()) as History;
    expect([dataOf(rest), rest.more]).toEqual([["a2", "b1"], false]);
    expect(dataOf((await (await get(broker)).json()) as History)).toEqual(["all"]);
    expect(dataOf((await (await get(broker, "?id=ann")).json()) as History)).toEqual(["all", "inbox"]);
    const head = await get(broker, "?channel=a", { method: "HEAD" });
    expect(head.status).toBe(200);
    expect((await get(broker, "", { method: "POST" })).status).toBe(405);
  }),
);

const authorize: BrokerOptions["authorize"] = ({ request, action }) => {
  if (action !== "connect") return false;
  const user = request.headers.get("x-user");
  return user !== null && { subject: user, clientId: user, channels: user === "ann" ? ["a"] : ["b"] };
};

test(
  "GET /history: a grant decides what may be read, and without a channel everything that a stream would receive is read",
  withEvents({ authorize }, async (broker) => {
    const as = (user: string, query = ""): Promise<Response> => get(broker, query, { headers: { "x-user": user } });
    expect(dataOf((await (await as("ann")).json()) as History)).toEqual(["all", "a1", "a2", "inbox"]);
    expect(dataOf((await (await as("ann", "?channel=a")).json()) as History)).toEqual(["a1", "a2"]);
    expect(dataOf((await (await as("bob")).json()) as History)).toEqual(["all", "b1"]);
    for (const query of ["?channel=b", "?id=bob", "?channel=a&channel=b"])
      expect((await as("ann", query)).status).toBe(403);
    expect((await get(broker)).status).toBe(403);
    await broker.disconnect("ann", { blockFor: 60_000 });
    expect((await as("ann")).status).toBe(204);
  }),
);

test.each([
  ["?limit=-1", 400],
  ["?limit=1001", 400],
  ["?limit=ten", 400],
  ["?limit=1e2", 400],
  ["?limit=1&limit=2", 400],
  ["?after=a&after=b", 400],
  ["?from=latest", 400],
  ["?chanel=a", 400],
  ["?limits=5", 400],
  ["?channel=", 400],
  ["?channel=a%0Ab", 400],
  [`?${Array.from({ length: 101 }, (_, n) => `channel=${n}`).join("&")}`, 400],
  ["?id=", 200],
  ["?limit=", 200],
  ["?limit=0", 200],
])("GET /history%s: %i", (query, status) =>
  withBroker(async (setup) => {
    const broker = setup.broker(HISTORY);
    const response = await get(broker, query);
    expect(response.status).toBe(status);
    if (status !== 200) expect(await response.json()).toMatchObject({ code: expect.stringMatching(/^bad-|too-many/) });
  })(),
);
