import { expect, test } from "vitest";
import type { Broker, BrokerStats, DisconnectReason, ErrorCode } from "../../../src/index.ts";
import { BROKER_METRICS, HTTP_METRICS } from "../../../src/monitoring/metric-definitions.ts";
import { respondWithMetrics } from "../../../src/monitoring/prometheus.ts";
import { type Family, readExposition } from "../../support/monitoring/prometheus-parser.ts";
import { clientRequest, eventRequest, problemOf, scene } from "../../support/test-broker.ts";

// `broker.metrics()`: what Prometheus is told. Its own programs read it in test/services.

const get = (init: RequestInit = {}): Request => new Request("https://fanwire.test/metrics", init);

async function scrape({ metrics }: Pick<Broker, "metrics">): Promise<Map<string, Family>> {
  const answer = await metrics(get());
  expect(answer.status).toBe(200);
  return readExposition(await answer.text());
}

/** What would be told of these. */
const telling = (stats: BrokerStats): Pick<Broker, "metrics"> => ({
  metrics: (request) => respondWithMetrics(request, [...BROKER_METRICS, ...HTTP_METRICS], () => stats),
});

/** The values of a family: by label, or the one that there is. */
const valuesOf = (families: Map<string, Family>, name: string): unknown => {
  const samples = families.get(name)?.samples ?? [];
  const [label] = Object.keys(samples[0]?.labels ?? {});
  if (label === undefined) return samples[0]?.value;
  return Object.fromEntries(samples.map(({ labels, value }) => [labels[label], value]));
};

// One that is missing here or in the answer fails: as a type, or as a test.
const REASONS: Record<DisconnectReason, 0> = {
  "client-left": 0,
  timeout: 0,
  disconnected: 0,
  expired: 0,
  "max-age": 0,
  replaced: 0,
  closing: 0,
  "write-failed": 0,
};
const CODES: Record<ErrorCode, 0> = {
  "bad-request": 0,
  "no-event-data": 0,
  "bad-event-type": 0,
  "bad-channel": 0,
  "bad-id": 0,
  "bad-key": 0,
  unauthorized: 0,
  forbidden: 0,
  "cross-origin": 0,
  "publishing-closed": 0,
  "unknown-client": 0,
  "not-found": 0,
  "method-not-allowed": 0,
  "duplicate-id": 0,
  "body-too-large": 0,
  "event-too-large": 0,
  "key-reused": 0,
  "client-left": 0,
  internal: 0,
  "at-capacity": 0,
  "authorize-timeout": 0,
  "authorize-unavailable": 0,
  closed: 0,
  "engine-down": 0,
  "engine-refused": 0,
  "publish-outcome-unknown": 0,
};

const STATS: BrokerStats = {
  clients: 1,
  ids: 2,
  blocked: 3,
  closing: 4,
  pending: 5,
  channels: 6,
  published: 7,
  sent: 8,
  bytes: 9,
  replayed: 10,
  gaps: 11,
  overruns: 12,
  disconnects: { timeout: 13 },
  failures: { "not-found": 14 },
  engine: "down",
  log: { events: 15, bytes: 16, channels: 17 },
};
/** What is told of those; names that dashboards and alerts rely on. */
const TOLD = {
  fanwire_clients: ["gauge", 1],
  fanwire_client_ids: ["gauge", 2],
  fanwire_blocked_clients: ["gauge", 3],
  fanwire_closing_clients: ["gauge", 4],
  fanwire_pending_requests: ["gauge", 5],
  fanwire_channels: ["gauge", 6],
  fanwire_events_published_total: ["counter", 7],
  fanwire_events_sent_total: ["counter", 8],
  fanwire_events_replayed_total: ["counter", 10],
  fanwire_sent_bytes_total: ["counter", 9],
  fanwire_gaps_total: ["counter", 11],
  fanwire_overruns_total: ["counter", 12],
  fanwire_disconnects_total: ["counter", { ...REASONS, timeout: 13 }],
  fanwire_failures_total: ["counter", { ...CODES, "not-found": 14 }],
  fanwire_engine_up: ["gauge", 0],
  fanwire_log_events: ["gauge", 15],
  fanwire_log_size_bytes: ["gauge", 16],
  fanwire_log_channels: ["gauge", 17],
};

test("metrics: each member of stats() has its name, its type, its help and its value", async () => {
  const families = await scrape(telling(STATS));
  const told = Object.fromEntries(
    Array.from(families, ([name, { type }]) => [name, [type, valuesOf(families, name)]] as const),
  );
  expect(told).toEqual(TOLD);
  for (const { help } of families.values()) expect(help).toMatch(/^[A-Z].+\.$/);
});

test(
  "metrics: from the start there is each reason and each code, with 0, and an engine that was not used is not down",
  scene(async (stage) => {
    const families = await scrape(stage.broker());
    expect(valuesOf(families, "fanwire_disconnects_total")).toEqual(REASONS);
    expect(valuesOf(families, "fanwire_failures_total")).toEqual(CODES);
    expect(valuesOf(families, "fanwire_engine_up")).toBe(1);
    for (const [name, { samples }] of families)
      for (const { value } of samples) expect([name, value]).toEqual([name, name === "fanwire_engine_up" ? 1 : 0]);
  }),
);

test(
  "metrics: follows a broker, closed or not, and a look at it changes nothing",
  scene(async (stage) => {
    const broker = stage.broker();
    const client = await stage.join(broker, { id: "ada", channel: "news" });
    const read = client.nextData();
    await broker.broadcast("x", { channels: "news" });
    await read;
    await broker.clientHandler(clientRequest({ id: "a\n" }));
    await broker.fetch(eventRequest("x"));
    const before = broker.stats();
    const families = await scrape(broker);
    expect(broker.stats()).toEqual(before);
    expect(valuesOf(families, "fanwire_clients")).toBe(1);
    expect(valuesOf(families, "fanwire_events_published_total")).toBe(1);
    expect(valuesOf(families, "fanwire_sent_bytes_total")).toBe(before.bytes);
    expect(valuesOf(families, "fanwire_log_size_bytes")).toBe(before.log.bytes);
    expect(valuesOf(families, "fanwire_failures_total")).toEqual({ ...CODES, "bad-id": 1, "publishing-closed": 1 });
    await client.leave();
    await broker.close();
    const last = await scrape(broker);
    expect(valuesOf(last, "fanwire_clients")).toBe(0);
    expect(valuesOf(last, "fanwire_disconnects_total")).toEqual({ ...REASONS, "client-left": 1 });
  }),
);

test(
  "metrics: no name of a channel, a client or a subject is told",
  scene(async (stage) => {
    const broker = stage.broker({
      authorize: ({ channels, clientId = "" }) => ({ subject: "subject-7", clientId, channels }),
    });
    await stage.join(broker, { id: "client-7", channel: "channel-7" });
    await broker.broadcast("data-7", { channels: "channel-7" });
    expect(await (await broker.metrics(get())).text()).not.toMatch(/-7/);
  }),
);

test(
  "metrics: the head is that of the text format, and nobody keeps the answer",
  scene(async (stage) => {
    const { headers } = await stage.broker().metrics(get());
    expect([headers.get("content-type"), headers.get("cache-control")]).toEqual([
      "text/plain; version=0.0.4; charset=utf-8",
      "no-store",
    ]);
  }),
);

test(
  "metrics: HEAD has the head alone, OPTIONS says what there is, other methods are 405, and none is counted",
  scene(async (stage) => {
    const broker = stage.broker({ errorHandler: () => new Response("mine") });
    const head = await broker.metrics(get({ method: "HEAD" }));
    expect([head.status, head.headers.get("content-type"), await head.text()]).toEqual([
      200,
      "text/plain; version=0.0.4; charset=utf-8",
      "",
    ]);
    const options = await broker.metrics(get({ method: "OPTIONS" }));
    expect([options.status, options.headers.get("allow")]).toEqual([204, "GET, HEAD, OPTIONS"]);
    for (const method of ["POST", "PUT", "DELETE"]) {
      const answer = await broker.metrics(get({ method }));
      expect([answer.status, answer.headers.get("allow"), await problemOf(answer)]).toEqual([
        405,
        "GET, HEAD, OPTIONS",
        "method-not-allowed",
      ]);
    }
    expect(broker.stats().failures).toEqual({});
  }),
);

test("metrics: who can name reasons or codes makes no series, and no line", async () => {
  const names = ['quo"te', "back\\slash", '"} 1\nfanwire_clients 99\n# EOF', "timeout ", "é", "__proto__", "toString"];
  const counts = { ...Object.fromEntries(names.map((name) => [name, 1])), timeout: 2, "not-found": 3 };
  const families = await scrape(telling({ ...STATS, disconnects: counts, failures: counts }));
  expect(valuesOf(families, "fanwire_disconnects_total")).toEqual({ ...REASONS, timeout: 2 });
  expect(valuesOf(families, "fanwire_failures_total")).toEqual({ ...CODES, "not-found": 3 });
  expect(valuesOf(families, "fanwire_clients")).toBe(1);
});
