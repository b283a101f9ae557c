// Client libraries as their users run them, against a real server: how each receives events, and what it does when a stream ends, breaks, or
// has a gap. README.md has the outcomes as a table.
import { readFileSync } from "node:fs";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, type TestContext, test } from "vitest";
import { startChromium } from "../support/clients/chromium.ts";
import { type Server, startServer, TestBroker } from "../support/servers/server.ts";
import type { TestBrokerOptions } from "../wire/servers/app.ts";
import {
  type Client,
  clients,
  EXPECTED,
  plainEventSourcePlus,
  plainFetchEventSource,
  type Scenario,
} from "./clients.ts";
import { type Start, startIn } from "./runtimes.ts";
import { CLIENT_ID, Session } from "./session.ts";

const PLATFORM = "node-hono";
const DAY_MS = 86_400_000;
const LINES = "\none\n\n  two ";
/** Outcomes of the scenario "lines", by the data that a client shows. */
const LINE_OUTCOMES = new Map([
  [LINES, EXPECTED.lines],
  ["one\n\n  two ", "no empty first line"],
  ["two", "last line, trimmed"],
]);
/** 900 kB, in which no part is like another. */
const LARGE = Array.from({ length: 90_000 }, (_, n) => String(n).padStart(10, ".")).join("");
/** Bytes of `LARGE` that arrive before the connection ends. The id of the event has arrived then. */
const PART = 300_000;

let browser: Browser;
let server: Server;
let start: Start;
beforeAll(async () => {
  browser = await startChromium();
  server = await startServer(PLATFORM);
  start = startIn(browser);
});
afterAll(async () => {
  await browser?.close();
  server?.stop();
});

async function open(
  client: Client,
  { onTestFinished }: Pick<TestContext, "onTestFinished">,
  options: TestBrokerOptions = {},
  on = server,
): Promise<Session> {
  const session = await Session.open(client, start, on, options);
  onTestFinished(() => session.close());
  return session;
}

const outcomeOf = (client: Client, scenario: Scenario): string => client.outcomes?.[scenario] ?? EXPECTED[scenario];

/** Waits until a client is back after its first `connections`, or has stopped, and returns its outcome. */
async function resumption(session: Session, connections = 1): Promise<string> {
  await session.untilConnected(connections + 1);
  await session.publish("after");
  await session.untilReceived("after");
  expect(session.strays).toEqual([]);
  const published = session.published.map(({ data }) => data);
  // Nothing is repeated or out of order, whatever is missing.
  expect(session.received).toEqual(published.filter((data) => session.received.includes(data)));
  if (session.received.length === published.length) return "resumes";
  return session.hasStopped ? "stops" : "loses the event";
}

describe.concurrent.each(clients)("$name", (client) => {
  test("events: three arrive with their types and ids, and nothing else, with heartbeats in between", async (context) => {
    const session = await open(client, context, { heartbeat: 100 });
    await session.publish("one");
    await session.until(() => session.tap.heartbeats >= 5);
    await session.publish("two", "price");
    await session.until(() => session.tap.heartbeats >= 10);
    await session.publish("three");
    await session.untilReceived("three");
    expect(session.strays).toEqual([]);
    expect(session.received).toEqual(["one", "two", "three"]);
    const ready = client.showsControlEvents === false ? [] : [{ clientId: CLIENT_ID, resumed: false }];
    expect(session.control("ready")).toMatchObject(ready);
    expect(session.events).toHaveLength(ready.length + 3);
  });

  test("lines: data of several lines, with empty lines and spaces", async (context) => {
    const session = await open(client, context);
    await session.publish(LINES);
    await session.publish("after");
    await session.untilReceived("after");
    const [lines = ""] = session.received;
    expect(LINE_OUTCOMES.get(lines) ?? JSON.stringify(lines)).toBe(outcomeOf(client, "lines"));
    expect(session.received).toEqual([lines, "after"]);
  });

  test("large: an event of 900 kB", async (context) => {
    const session = await open(client, context);
    await session.publish(LARGE);
    await session.untilReceived(LARGE);
    expect(session.strays).toEqual([]);
    expect(session.received).toEqual([LARGE]);
  });

  test("end: after a fanwire-end that says reconnect", async (context) => {
    const session = await open(client, context);
    await session.publish("before");
    await session.untilReceived("before");
    session.tap.refuse();
    await session.broker.control("disconnect", { id: CLIENT_ID });
    await session.publish("in the pause");
    session.tap.accept();
    expect(await resumption(session)).toBe(outcomeOf(client, "end"));
    const ends = client.showsControlEvents === false ? [] : [{ reason: "disconnected", reconnect: true }];
    expect(session.control("end")).toEqual(ends);
  });

  test("cut: after a connection that breaks", async (context) => {
    const session = await open(client, context);
    await session.publish("before");
    await session.untilReceived("before");
    session.tap.refuse();
    session.tap.cut();
    await session.publish("in the pause");
    session.tap.accept();
    expect(await resumption(session)).toBe(outcomeOf(client, "cut"));
  });

  test("cut inside: after a connection that breaks inside an event", async (context) => {
    const session = await open(client, context);
    // A stream that breaks drops the chunks that its reader has not taken yet, so the client has to have an id before.
    await session.publish("before");
    await session.untilReceived("before");
    session.tap.cutAfter(PART);
    await session.publish(LARGE);
    expect(await resumption(session)).toBe(outcomeOf(client, "cut inside"));
  });

  test("gap: after an absence in which the log dropped events", async (context) => {
    const session = await open(client, context, { engine: { retention: { events: 2 } } });
    await session.publish("before");
    await session.untilReceived("before");
    session.tap.refuse();
    session.tap.cut();
    for (const data of ["1", "2", "3", "4", "5"]) await session.publish(data);
    session.tap.accept();
    await session.untilReceived("5");
    expect(session.strays).toEqual([]);
    expect(session.received).toEqual(["before", "4", "5"]);
    const [before, , , third] = session.published;
    const gap = { channels: ["fanwire-common"], after: before?.id, through: third?.id };
    expect(session.control("gap")).toEqual(outcomeOf(client, "gap") === "shown" ? [gap] : []);
  });

  test("max age: over several connections that maxConnectionAge ends", async (context) => {
    const session = await open(client, context, { maxConnectionAge: 1_000 });
    for (let round = 1; round <= 3 && !session.hasStopped; round++) {
      await session.untilConnected(round);
      await session.publish(`${round}, connected`);
      await session.untilReceived(`${round}, connected`);
      await session.until(() => session.hasStopped || session.control("end").length >= round);
      await session.publish(`${round}, away`);
    }
    expect(await resumption(session, 3)).toBe(outcomeOf(client, "max age"));
  });

  test("deploy: a new process with a new log takes the place of the first", async (context) => {
    const first = await startServer(PLATFORM);
    context.onTestFinished(() => first.stop());
    const session = await open(client, context, {}, first);
    await session.publish("before");
    await session.untilReceived("before");
    await session.broker.control("close");
    await first.stopGracefully();
    const second = await startServer(PLATFORM, { fixedPort: first.port });
    context.onTestFinished(() => second.stop());
    session.broker = new TestBroker(second, session.broker.name);
    await session.untilConnected(1);
    await session.publish("after");
    await session.untilReceived("after");
    expect(session.strays).toEqual([]);
    if (outcomeOf(client, "deploy") === "stops") {
      expect(session.hasStopped).toBe(true);
      expect(session.received).toEqual(["before"]);
    } else {
      expect(session.received).toEqual(["before", "after"]);
      expect(session.control("end")[0]).toEqual({ reason: "closing", reconnect: true });
      expect(session.control("gap")).toEqual([expect.objectContaining({ after: null })]);
    }
  });

  test("barred: a client that does not read fanwire-end, and whose requests are answered with 204", async (context) => {
    const session = await open(client, context);
    await session.broker.control("disconnect", { id: CLIENT_ID, blockFor: DAY_MS });
    await session.until(() => session.hasStopped || session.tap.noContents >= 2);
    expect(session.hasStopped ? "stops" : "asks again").toBe(outcomeOf(client, "barred"));
    expect(session.strays).toEqual([]);
  });
});

describe.concurrent("clients without what README.md asks for", () => {
  test("fetch-event-source: without onclose a client stops at the first end of its stream", async (context) => {
    const session = await open(plainFetchEventSource, context);
    await session.broker.control("disconnect", { id: CLIENT_ID });
    await session.until(() => session.hasStopped);
    expect(session.control("end")).toEqual([{ reason: "disconnected", reconnect: true }]);
  });

  test("event-source-plus: with the strategy always a client returns at once, although retry says a day", async (context) => {
    const session = await open(plainEventSourcePlus, context, { retry: DAY_MS });
    await session.broker.control("disconnect", { id: CLIENT_ID });
    await session.untilConnected(2);
    expect(session.hasStopped).toBe(false);
  });
});

test("README: the table has the versions and the outcomes of these tests", () => {
  const read = (path: string): string => readFileSync(new URL(path, import.meta.url), "utf8");
  const { devDependencies } = JSON.parse(read("../../package.json")) as { devDependencies: Record<string, string> };
  const versionOf = (dependency: string): string => devDependencies[dependency]?.replace(/.*@/, "") ?? "missing";
  const row = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  const scenarios = Object.keys(EXPECTED) as Scenario[];
  const rows = clients.map((client) =>
    row([
      client.dependency ? `${client.name} ${versionOf(client.dependency)}` : client.name,
      ...scenarios.map((scenario) => outcomeOf(client, scenario)),
    ]),
  );
  const lines = read("./README.md")
    .split("\n")
    .map((line) => line.replaceAll(/ +/g, " "));
  expect(lines).toEqual(expect.arrayContaining([row(["client", ...scenarios]), ...rows]));
});
