// `broker.metrics()`: the text that Prometheus reads. Prometheus' own programs read it in test/services.
import { expect, test } from "vitest";
import type { Broker, BrokerStats, DisconnectReason, ErrorCode } from "../../../src/index.ts";
import { BROKER_METRICS, HTTP_METRICS } from "../../../src/monitoring/metric-definitions.ts";
import { respondWithMetrics } from "../../../src/monitoring/prometheus.ts";
import { type MetricFamily, parseExposition } from "../../support/monitoring/prometheus-parser.ts";
import { clientRequest, eventRequest, problemOf, withBroker } from "../../support/test-broker.ts";

const get = (init: RequestInit = {}): Request => new Request("https://fanwire.test/metrics", init);

async function scrape({ metrics }: Pick<Broker, "metrics">): Promise<Map<string, MetricFamily>> {
  const answer = await metrics(get());
  expect(answer.status).toBe(200);
  return parseExposition(await answer.text());
}

/** A broker with these statistics. */
const brokerWith = (stats: BrokerStats): Pick<Broker, "metrics"> => ({
  metrics: (request) => respondWithMetrics(request, [...BROKER_METRICS, ...HTTP_METRICS], () => stats),
});

/** Returns the values of a metric by label value, or the single value. */
const valuesOf = (families: Map<string, MetricFamily>, name: string): unknown => {
  const samples = families.get(name)?.samples ?? [];
  const [label] = Object.keys(samples[0]?.labels ?? {});
  if (label === undefined) return samples[0]?.value;
  return Object.fromEntries(samples.map(({ labels, value }) => [labels[label], value]));
};

// The type fails for a name that is missing here, and the tests fail for one that is missing in the answer.
const REASONS: Record<DisconnectReason, 0> = {
  "client-left": 0,
  timeout: 0,
  disconnected: 0,
  expired: 0,
  "max-age": 0,
  replaced: 0,
  closing: 0,
  "write-failed": 0,
  "snapshot-failed": 0,
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
  "unknown-stream": 0,
  "not-found": 0,
  "method-not-allowed": 0,
  "duplicate-id": 0,
  "run-exists": 0,
  "run-ended": 0,
  "run-lost": 0,
  "run-too-large": 0,
  "unknown-run": 0,
  "unsupported-media-type": 0,
  "bad-event-data": 0,
  "body-already-read": 0,
  "body-timeout": 0,
  "body-too-large": 0,
  "event-too-large": 0,
  "key-reused": 0,
  "rate-limited": 0,
  "client-left": 0,
  internal: 0,
  "at-capacity": 0,
  "authorize-timeout": 0,
  "authorize-unavailable": 0,
  "bad-grant": 0,
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
/** The metrics of STATS. Dashboards and alerts rely on these names. */
const METRICS = {
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

test("metrics(): each number of stats() has a name, a type, a help text and a value", async () => {
  const families = await scrape(brokerWith(STATS));
  const metrics = Object.fromEntries(
    Array.from(families, ([name, { type }]) => [name, [type, valuesOf(families, name)]] as const),
  );
  expect(metrics).toEqual(METRICS);
  for (const { help } of families.values()) expect(help).toMatch(/^[A-Z].+\.$/);
});

test(
  "metrics(): every reason and code is present from the start, with 0, and an unused engine is up",
  withBroker(async (setup) => {
    const families = await scrape(setup.broker());
    expect(valuesOf(families, "fanwire_disconnects_total")).toEqual(REASONS);
    expect(valuesOf(families, "fanwire_failures_total")).toEqual(CODES);
    expect(valuesOf(families, "fanwire_engine_up")).toBe(1);
    for (const [name, { samples }] of families)
      for (const { value } of samples) expect([name, value]).toEqual([name, name === "fanwire_engine_up" ? 1 : 0]);
  }),
);

test(
  "metrics(): has the current numbers, also of a closed broker, and a scrape changes nothing",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "ada", channel: "news" });
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
  "metrics(): reveals no name of a channel, a client or a subject",
  withBroker(async (setup) => {
    const broker = setup.broker({
      authorize: ({ channels, clientId = "" }) => ({ subject: "subject-7", clientId, channels }),
    });
    await setup.join(broker, { id: "client-7", channel: "channel-7" });
    await broker.broadcast("data-7", { channels: "channel-7" });
    expect(await (await broker.metrics(get())).text()).not.toMatch(/-7/);
  }),
);

test(
  "metrics(): has the content type of the text format, and is not cached",
  withBroker(async (setup) => {
    const { headers } = await setup.broker().metrics(get());
    expect([headers.get("content-type"), headers.get("cache-control")]).toEqual([
      "text/plain; version=0.0.4; charset=utf-8",
      "no-store",
    ]);
  }),
);

test(
  "metrics(): answers HEAD without a body, OPTIONS with Allow, and other methods 405; none is counted",
  withBroker(async (setup) => {
    const broker = setup.broker({ errorHandler: () => new Response("mine") });
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

test("metrics(): an unknown reason or code adds no series and no line", async () => {
  const names = ['quo"te', "back\\slash", '"} 1\nfanwire_clients 99\n# EOF', "timeout ", "é", "__proto__", "toString"];
  const counts = { ...Object.fromEntries(names.map((name) => [name, 1])), timeout: 2, "not-found": 3 };
  const families = await scrape(brokerWith({ ...STATS, disconnects: counts, failures: counts }));
  expect(valuesOf(families, "fanwire_disconnects_total")).toEqual({ ...REASONS, timeout: 2 });
  expect(valuesOf(families, "fanwire_failures_total")).toEqual({ ...CODES, "not-found": 3 });
  expect(valuesOf(families, "fanwire_clients")).toBe(1);
});
