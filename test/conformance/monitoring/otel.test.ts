import { SpanKind, SpanStatusCode, trace, ValueType } from "@opentelemetry/api";
import { expect, test } from "vitest";
import { type Broker, BrokerError, type Engine, type EventInput } from "../../../src/index.ts";
import { type InstrumentOptions, instrument } from "../../../src/otel.ts";
import { pointsOf, Telemetry, withContext } from "../../support/monitoring/telemetry.ts";
import { codeOf, eventRequest, type Scene, scene } from "../../support/test-broker.ts";

// The bridge to OpenTelemetry, with its own SDK at the other end.

/** A scene with an SDK, and a broker that it is told of. */
const watched = (
  body: (
    stage: Scene,
    telemetry: Telemetry,
    make: (options?: Parameters<Scene["broker"]>[0], own?: InstrumentOptions) => Broker,
  ) => Promise<void>,
): (() => Promise<void>) =>
  scene(async (stage) => {
    const telemetry = new Telemetry();
    try {
      await body(stage, telemetry, (options, own) =>
        instrument(stage.broker(options), { ...telemetry.providers, ...own }),
      );
    } finally {
      await telemetry.end();
    }
  });

const SEND = { "messaging.system": "fanwire", "messaging.operation.type": "send" };

test(
  "instrument: what is for everybody is a span of a producer, with the event's id",
  watched(async (stage, telemetry, make) => {
    const broker = make();
    await stage.join(broker);
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
  "instrument: a channel is the destination, and names the span only by its template",
  watched(async (_stage, telemetry, make) => {
    const template = (channel: string): string | undefined =>
      channel.startsWith("room-") ? channel.replace(/\d+/, "{id}") : undefined;
    const broker = make({}, { template });
    await make().broadcast("x", { channels: "room-7" });
    await broker.broadcast("x", { channels: "room-7" });
    await broker.broadcast("x", { channels: ["room-7"] });
    await broker.broadcast("x", { channels: "news" });
    await broker.broadcast("x", { channels: ["news", "room-7"] });
    const told = (await telemetry.spans()).map(({ name, attributes }) => [
      name,
      attributes["messaging.destination.name"],
      attributes["messaging.destination.template"],
      attributes["messaging.fanwire.channels"],
    ]);
    expect(told).toEqual([
      ["broadcast", "room-7", undefined, undefined],
      ["broadcast room-{id}", "room-7", "room-{id}", undefined],
      ["broadcast room-{id}", "room-7", "room-{id}", undefined],
      ["broadcast", "news", undefined, undefined],
      ["broadcast", undefined, undefined, ["news", "room-7"]],
    ]);
  }),
);

test(
  "instrument: no span and no metric has the id of a client, also when it is unknown",
  watched(async (stage, telemetry, make) => {
    const broker = make();
    await stage.join(broker, { id: "secret-7" });
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
  "instrument: what fails is an error by its code, and the caller gets the very same one",
  watched(async (stage, telemetry, make) => {
    const inner = stage.engine();
    const fault = new BrokerError("publish-outcome-unknown", "away");
    const engine: Engine = {
      open: (follower) => ({ ...inner.open(follower), append: () => Promise.reject(fault) }),
    };
    const broker = make({ engine });
    await expect(broker.broadcast("x")).rejects.toBe(fault);
    expect(await codeOf(broker.broadcast("x", { channels: "" }))).toBe("bad-channel");
    expect(await codeOf(broker.broadcast({ typo: 1 } as unknown as EventInput))).toBe("TypeError");
    expect(await codeOf(broker.broadcast("x", { chanel: "a" } as object))).toBe("TypeError");
    expect(await codeOf(broker.broadcast("x", null as unknown as object))).toBe("TypeError");
    const told = (await telemetry.spans()).map(({ status, attributes, ended }) => [
      status,
      attributes["error.type"],
      attributes["messaging.message.id"],
      ended,
    ]);
    const failed = { code: SpanStatusCode.ERROR };
    expect(told).toEqual([
      [failed, "publish-outcome-unknown", undefined, true],
      [failed, "bad-channel", undefined, true],
      [failed, "TypeError", undefined, true],
      [failed, "TypeError", undefined, true],
      [failed, "TypeError", undefined, true],
    ]);
  }),
);

test(
  "instrument: what was sent is counted and timed, by destination where those are few, and by error",
  watched(async (stage, telemetry, make) => {
    const broker = make();
    await stage.join(broker, { id: "ada" });
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
      // A clock that stands still, as on Workers, makes it 0.
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
  "instrument: what stats() says is observed, and once more after close()",
  watched(async (stage, telemetry, make) => {
    const broker = make();
    const client = await stage.join(broker, { id: "ada", channel: "a" });
    const read = client.nextData();
    await broker.broadcast("x", { channels: "a" });
    await read;
    // Not of the program's own sending, but of what was published.
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
  "instrument: counters are monotonic, what goes up and down is not, and bytes are of that unit",
  watched(async (_stage, telemetry, make) => {
    make();
    const told = Array.from(await telemetry.metrics(), ([name, metric]) => [
      name,
      ["isMonotonic" in metric && metric.isMonotonic, metric.descriptor.unit],
    ]);
    expect(Object.fromEntries(told)).toEqual({
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
  "instrument: two brokers of one process are told apart by attributes",
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
  "instrument: the span is active while the engine appends, and a child of the one that is active at the call",
  watched(async (stage, telemetry, make) => {
    const inner = stage.engine();
    const active: (string | undefined)[] = [];
    const engine: Engine = {
      open(follower) {
        const session = inner.open(follower);
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
    await withContext(async () => {
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
  "instrument: events keep the order of the calls, and reports and keys are as they were",
  watched(async (stage, telemetry, make) => {
    const broker = make();
    const client = await stage.join(broker);
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
  "instrument: close() is the broker's own, and one that is refused closes nothing",
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
  "instrument: does no harm where no SDK is registered",
  scene(async (stage) => {
    const broker = instrument(stage.broker());
    const client = await stage.join(broker, { id: "ada" });
    await broker.broadcast("1");
    await broker.broadcastTo("ada", "2");
    await client.untilData("2");
    expect([client.data, await codeOf(broker.broadcastTo("bob", "x"))]).toEqual([["1", "2"], "unknown-client"]);
    expect((await broker.health(new Request("https://fanwire.test/"))).status).toBe(200);
  }),
);

test(
  "instrument: what is no broker and no option is refused",
  scene(async (stage) => {
    const broker = stage.broker();
    for (const none of [undefined, null, {}]) expect(() => instrument(none as unknown as Broker)).toThrow(TypeError);
    for (const wrong of [{ traceProvider: trace }, null, []])
      expect(() => instrument(broker, wrong as InstrumentOptions)).toThrow(TypeError);
  }),
);
