// `fanwire/otel` with OpenTelemetry's own SDK.
import { SpanKind, SpanStatusCode, trace, ValueType } from "@opentelemetry/api";
import { expect, test } from "vitest";
import { type Broker, BrokerError, type Engine, type EventInput } from "../../../src/index.ts";
import { type InstrumentOptions, instrument } from "../../../src/otel.ts";
import { pointsOf, Telemetry, withActiveContext } from "../../support/monitoring/telemetry.ts";
import { codeOf, eventRequest, type TestSetup, withBroker } from "../../support/test-broker.ts";

/** Runs a test with an SDK, and with `make`, which creates instrumented brokers. */
const watched = (
  body: (
    setup: TestSetup,
    telemetry: Telemetry,
    make: (options?: Parameters<TestSetup["broker"]>[0], own?: InstrumentOptions) => Broker,
  ) => Promise<void>,
): (() => Promise<void>) =>
  withBroker(async (setup) => {
    const telemetry = new Telemetry();
    try {
      await body(setup, telemetry, (options, own) =>
        instrument(setup.broker(options), { ...telemetry.providers, ...own }),
      );
    } finally {
      await telemetry.close();
    }
  });

const SEND = { "messaging.system": "fanwire", "messaging.operation.type": "send" };

test(
  "instrument(): an event for every client is a producer span with the event's id",
  watched(async (setup, telemetry, make) => {
    const broker = make();
    await setup.join(broker);
    const { id, clients } = await broker.broadcast({ event: "price", data: { ada: 1 } });
    const [span, ...others] = await telemetry.spans();
    expect(others).toEqual([]);
    expect(span).toMatchObject({
      name: "broadcast fanwire-common",
      kind: SpanKind.PRODUCER,
      status: { code: SpanStatusCode.UNSET },
      ended: true,
      instrumentationScope: { name: "fanwire" },
    });
    expect(span?.attributes).toEqual({
      ...SEND,
      "messaging.operation.name": "broadcast",
      "messaging.destination.name": "fanwire-common",
      "messaging.message.id": id,
      "messaging.fanwire.clients": clients,
    });
    expect(clients).toBe(1);
  }),
);

test(
  "instrument(): the channel is the destination, and only its template names the span",
  watched(async (_stage, telemetry, make) => {
    const template = (channel: string): string | undefined =>
      channel.startsWith("room-") ? channel.replace(/\d+/, "{id}") : undefined;
    const broker = make({}, { template });
    await make().broadcast("x", { channels: "room-7" });
    await broker.broadcast("x", { channels: "room-7" });
    await broker.broadcast("x", { channels: ["room-7"] });
    await broker.broadcast("x", { channels: "news" });
    await broker.broadcast("x", { channels: ["news", "room-7"] });
    const spans = (await telemetry.spans()).map(({ name, attributes }) => [
      name,
      attributes["messaging.destination.name"],
      attributes["messaging.destination.template"],
      attributes["messaging.fanwire.channels"],
    ]);
    expect(spans).toEqual([
      ["broadcast", "room-7", undefined, undefined],
      ["broadcast room-{id}", "room-7", "room-{id}", undefined],
      ["broadcast room-{id}", "room-7", "room-{id}", undefined],
      ["broadcast", "news", undefined, undefined],
      ["broadcast", undefined, undefined, ["news", "room-7"]],
    ]);
  }),
);

test(
  "instrument(): no span and no metric has a client id, known or unknown",
  watched(async (setup, telemetry, make) => {
    const broker = make();
    await setup.join(broker, { id: "secret-7" });
    await broker.broadcastTo("secret-7", "x");
    expect(await codeOf(broker.broadcastTo("secret-8", "x"))).toBe("unknown-client");
    const spans = await telemetry.spans();
    expect(spans.map(({ name, attributes }) => [name, attributes["messaging.operation.name"]])).toEqual([
      ["broadcastTo fanwire-inbox", "broadcastTo"],
      ["broadcastTo fanwire-inbox", "broadcastTo"],
    ]);
    for (const { name, attributes, status, events, links } of spans)
      expect(JSON.stringify([name, attributes, status, events, links])).not.toContain("secret");
    const points = Array.from((await telemetry.metrics()).values(), ({ dataPoints }) =>
      dataPoints.map(({ attributes }) => attributes),
    );
    expect(JSON.stringify(points)).not.toContain("secret");
  }),
);

test(
  "instrument(): a failed publish is an error with its code, and the caller receives the original error",
  watched(async (setup, telemetry, make) => {
    const inner = setup.engine();
    const fault = new BrokerError("publish-outcome-unknown", "away");
    const engine: Engine = {
      open: (listener) => ({ ...inner.open(listener), append: () => Promise.reject(fault) }),
    };
    const broker = make({ engine });
    await expect(broker.broadcast("x")).rejects.toBe(fault);
    expect(await codeOf(broker.broadcast("x", { channels: "" }))).toBe("bad-channel");
    expect(await codeOf(broker.broadcast({ typo: 1 } as unknown as EventInput))).toBe("TypeError");
    expect(await codeOf(broker.broadcast("x", { chanel: "a" } as object))).toBe("TypeError");
    expect(await codeOf(broker.broadcast("x", null as unknown as object))).toBe("TypeError");
    const spans = (await telemetry.spans()).map(({ status, attributes, ended }) => [
      status,
      attributes["error.type"],
      attributes["messaging.message.id"],
      ended,
    ]);
    const failed = { code: SpanStatusCode.ERROR };
    expect(spans).toEqual([
      [failed, "publish-outcome-unknown", undefined, true],
      [failed, "bad-channel", undefined, true],
      [failed, "TypeError", undefined, true],
      [failed, "TypeError", undefined, true],
      [failed, "TypeError", undefined, true],
    ]);
  }),
);

test(
  "instrument(): counts and times publishes, by error, and by destination if there are few of them",
  watched(async (setup, telemetry, make) => {
    const broker = make();
    await setup.join(broker, { id: "ada" });
    for (const channel of ["a", "b", ["c", "d"]]) await broker.broadcast("x", { channels: channel });
    await broker.broadcast("x");
    await broker.broadcastTo("ada", "x");
    await codeOf(broker.broadcastTo("nobody", "x"));
    const metrics = await telemetry.metrics();
    const common = { ...SEND, "messaging.operation.name": "broadcast" };
    const inbox = {
      ...SEND,
      "messaging.operation.name": "broadcastTo",
      "messaging.destination.name": "fanwire-inbox",
    };
    const expected = [
      [common, 3],
      [{ ...common, "messaging.destination.name": "fanwire-common" }, 1],
      [inbox, 1],
      [{ ...inbox, "error.type": "unknown-client" }, 1],
    ];
    expect(pointsOf(metrics, "messaging.client.sent.messages")).toEqual(expected);
    expect(metrics.get("messaging.client.sent.messages")?.descriptor.unit).toBe("{message}");
    const durations = metrics.get("messaging.client.operation.duration");
    expect(durations?.descriptor.unit).toBe("s");
    const timed = pointsOf(metrics, "messaging.client.operation.duration") as [object, Timed][];
    expect(timed.map(([attributes, { count }]) => [attributes, count])).toEqual(expected);
    for (const [, { sum, buckets }] of timed) {
      expect(buckets.boundaries).toEqual([0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]);
      // The sum is 0 if the clock is frozen, as on Workers.
      expect(sum).toBeGreaterThanOrEqual(0);
      expect(sum).toBeLessThan(10);
    }
  }),
);

interface Timed {
  readonly count: number;
  readonly sum: number;
  readonly buckets: { readonly boundaries: readonly number[] };
}

test(
  "instrument(): the numbers of stats() are observed, also after close()",
  watched(async (setup, telemetry, make) => {
    const broker = make();
    const client = await setup.join(broker, { id: "ada", channel: "a" });
    const read = client.nextData();
    await broker.broadcast("x", { channels: "a" });
    await read;
    // Requests are counted in stats(), and start no span.
    await broker.eventHandler(eventRequest("x"));
    await broker.fetch(new Request("https://fanwire.test/nothing"));
    expect((await telemetry.spans()).length).toBe(1);
    const stats = broker.stats();
    const metrics = await telemetry.metrics();
    const one = (name: string): unknown => pointsOf(metrics, name)[0]?.[1];
    expect([one("fanwire.clients"), one("fanwire.events.published"), one("fanwire.engine.up")]).toEqual([1, 2, 1]);
    expect([one("fanwire.sent"), one("fanwire.log.size")]).toEqual([stats.bytes, stats.log.bytes]);
    const failures = pointsOf(metrics, "fanwire.failures");
    expect(failures).toContainEqual([{ code: "not-found" }, 1]);
    expect(failures).toContainEqual([{ code: "engine-down" }, 0]);
    expect(pointsOf(metrics, "fanwire.disconnects")).toContainEqual([{ reason: "timeout" }, 0]);
    for (const [name, { descriptor }] of metrics)
      if (name.startsWith("fanwire."))
        expect([name, descriptor.valueType, descriptor.description !== ""]).toEqual([name, ValueType.INT, true]);

    await client.leave();
    await broker.close();
    const last = await telemetry.metrics();
    expect(pointsOf(last, "fanwire.disconnects")).toContainEqual([{ reason: "client-left" }, 1]);
    expect(pointsOf(last, "fanwire.clients")).toEqual([[{}, 0]]);
  }),
);

test(
  "instrument(): the duration of a publish is in seconds",
  watched(async (setup, telemetry, make) => {
    let timeMs = 1_000;
    const inner = setup.engine();
    const engine: Engine = {
      open(listener) {
        const session = inner.open(listener);
        return {
          ...session,
          append(...event) {
            timeMs += 1_500;
            return session.append(...event);
          },
        };
      },
    };
    const realNow = performance.now;
    performance.now = () => timeMs;
    try {
      await make({ engine }).broadcast("x");
    } finally {
      performance.now = realNow;
    }
    const [point] = pointsOf(await telemetry.metrics(), "messaging.client.operation.duration");
    expect(point?.[1]).toMatchObject({ count: 1, sum: 1.5 });
  }),
);

test(
  "instrument(): counters are monotonic, gauges are not, and bytes have their unit",
  watched(async (_stage, telemetry, make) => {
    make();
    const described = Array.from(await telemetry.metrics(), ([name, metric]) => [
      name,
      ["isMonotonic" in metric && metric.isMonotonic, metric.descriptor.unit],
    ]);
    expect(Object.fromEntries(described)).toEqual({
      "fanwire.clients": [false, ""],
      "fanwire.client.ids": [false, ""],
      "fanwire.blocked.clients": [false, ""],
      "fanwire.closing.clients": [false, ""],
      "fanwire.pending.requests": [false, ""],
      "fanwire.channels": [false, ""],
      "fanwire.events.published": [true, ""],
      "fanwire.events.sent": [true, ""],
      "fanwire.events.replayed": [true, ""],
      "fanwire.sent": [true, "By"],
      "fanwire.gaps": [true, ""],
      "fanwire.overruns": [true, ""],
      "fanwire.disconnects": [true, ""],
      "fanwire.failures": [true, ""],
      "fanwire.engine.up": [false, ""],
      "fanwire.log.events": [false, ""],
      "fanwire.log.size": [false, "By"],
      "fanwire.log.channels": [false, ""],
    });
  }),
);

test(
  "instrument(): attributes distinguish two brokers of one process",
  watched(async (_stage, telemetry, make) => {
    const [one, two] = ["one", "two"].map((name) => make({}, { attributes: { "app.broker": name } })) as [
      Broker,
      Broker,
    ];
    await one.broadcast("x");
    await two.broadcast("x");
    await two.broadcast("x");
    const metrics = await telemetry.metrics();
    expect(pointsOf(metrics, "fanwire.events.published")).toEqual([
      [{ "app.broker": "one" }, 1],
      [{ "app.broker": "two" }, 2],
    ]);
    const sent = pointsOf(metrics, "messaging.client.sent.messages");
    expect(sent.map(([attributes, value]) => [attributes["app.broker"], value])).toEqual([
      ["one", 1],
      ["two", 2],
    ]);
    const spans = await telemetry.spans();
    expect(spans.map(({ attributes }) => attributes["app.broker"])).toEqual(["one", "two", "two"]);
  }),
);

test(
  "instrument(): the span is active while the engine appends, and a child of the span that is active at the call",
  watched(async (setup, telemetry, make) => {
    const inner = setup.engine();
    const active: (string | undefined)[] = [];
    const engine: Engine = {
      open(listener) {
        const session = inner.open(listener);
        return {
          ...session,
          append(...event) {
            active.push(trace.getActiveSpan()?.spanContext().spanId);
            return session.append(...event);
          },
        };
      },
    };
    const broker = make({ engine });
    await withActiveContext(async () => {
      const tracer = telemetry.tracerProvider.getTracer("app");
      const sent = tracer.startActiveSpan("request", (parent) => {
        const publishing = broker.broadcast("x");
        parent.end();
        return publishing;
      });
      await sent;
    });
    const [parent, child] = await telemetry.spans();
    expect([parent?.name, child?.name]).toEqual(["request", "broadcast fanwire-common"]);
    expect(child?.parentSpanContext?.spanId).toBe(parent?.spanContext().spanId);
    expect(active).toEqual([child?.spanContext().spanId]);
  }),
);

test(
  "instrument(): events keep the order of the calls, and reports and idempotency keys work",
  watched(async (setup, telemetry, make) => {
    const broker = make();
    const client = await setup.join(broker);
    const { broadcast } = broker;
    const all = Array.from({ length: 50 }, (_, n) => broadcast(`${n}`));
    await client.untilData("49");
    expect(client.data).toEqual(Array.from({ length: 50 }, (_, n) => `${n}`));
    await Promise.all(all);
    const read = client.nextData();
    const first = await broadcast("keyed", { idempotencyKey: "k", report: true });
    await read;
    expect(await first.report).toEqual({ sent: 1, failed: [] });
    expect((await broadcast("keyed", { idempotencyKey: "k" })).id).toBe(first.id);
    expect((await telemetry.spans()).length).toBe(52);
  }),
);

test(
  "instrument(): close() works as before, and a refused call closes nothing",
  watched(async (_stage, telemetry, make) => {
    const broker = make();
    expect(await codeOf(broker.close({ spreadOver: -1 }))).toBe("RangeError");
    await broker.broadcast("x");
    expect(pointsOf(await telemetry.metrics(), "fanwire.events.published")).toEqual([[{}, 1]]);
    const closed = broker.close();
    expect(broker.close()).toBe(closed);
    await closed;
    expect(await codeOf(broker.broadcast("x"))).toBe("closed");
  }),
);

test(
  "instrument(): works without a registered SDK",
  withBroker(async (setup) => {
    const broker = instrument(setup.broker());
    const client = await setup.join(broker, { id: "ada" });
    await broker.broadcast("1");
    await broker.broadcastTo("ada", "2");
    await client.untilData("2");
    expect([client.data, await codeOf(broker.broadcastTo("bob", "x"))]).toEqual([["1", "2"], "unknown-client"]);
    expect((await broker.health(new Request("https://fanwire.test/"))).status).toBe(200);
  }),
);

test(
  "instrument(): a value that is not a broker and an unknown option are refused",
  withBroker(async (setup) => {
    const broker = setup.broker();
    for (const value of [undefined, null, {}]) expect(() => instrument(value as unknown as Broker)).toThrow(TypeError);
    for (const wrong of [{ traceProvider: trace }, null, []])
      expect(() => instrument(broker, wrong as InstrumentOptions)).toThrow(TypeError);
  }),
);
