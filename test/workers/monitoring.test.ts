import { expect, test } from "vitest";
import { instrument } from "../../src/otel.ts";
import { hub } from "../../src/workers/index.ts";
import { parseExposition } from "../support/monitoring/prometheus-parser.ts";
import { pointsOf, Telemetry } from "../support/monitoring/telemetry.ts";
import { problemOf } from "../support/test-broker.ts";
import { withObject } from "./support/test-object.ts";

// The monitoring methods of a hub. They report the object; counts of one isolate are left out.

const get = (path: string): Request => new Request(`https://fanwire.test/${path}`);

test(
  "hub.health(): 200 while the object takes work, 503 when it is closing, 405 without a call to the object",
  withObject({}, async (object) => {
    const { health } = object.hub;
    const healthy = await health(get("health"));
    expect([healthy.status, await healthy.json()]).toEqual([200, { status: "up" }]);
    expect((await health(new Request("https://fanwire.test/", { method: "POST" }))).status).toBe(405);
    await object.inside((instance) => instance.close());
    const unhealthy = await health(get("health"));
    expect([unhealthy.status, unhealthy.headers.get("cache-control"), await problemOf(unhealthy)]).toEqual([
      503,
      "no-store",
      "closed",
    ]);
    expect((await object.hub.stats()).failures).toEqual({});
    await object.evict();
    expect((await health(get("health"))).status).toBe(200);
  }),
);

test(
  "hub.health(): an object that does not answer is 503, without the reason",
  withObject({}, async () => {
    const unreachable = { getByName: () => ({ serve: () => Promise.reject(new Error("inner text")) }) };
    const unhealthy = await hub(unreachable).health(get("health"));
    expect([unhealthy.status, unhealthy.headers.get("retry-after")]).toEqual([503, "1"]);
    expect(await unhealthy.text()).not.toContain("inner text");
  }),
);

test(
  "hub.health(): checks the object that the request is for, and an error of name() reaches only onError",
  withObject({}, async (object) => {
    const errors: string[] = [];
    const namedFor: string[] = [];
    const otherHub = object.otherHub({
      name: ({ url }) => {
        if (url.endsWith("broken")) throw new Error("inner text");
        namedFor.push(url);
        return object.name;
      },
      onError: ({ error, stage }) => errors.push(`${stage}: ${(error as Error).message}`),
    });
    expect((await otherHub.health(get("health"))).status).toBe(200);
    expect(namedFor).toEqual(["https://fanwire.test/health"]);
    const unhealthy = await otherHub.health(get("broken"));
    expect([unhealthy.status, await unhealthy.text()]).toEqual([500, expect.not.stringContaining("inner text")]);
    expect(errors).toEqual(["request: inner text"]);
  }),
);

test(
  "hub.metrics(): has the counts of the object, and not those of the isolate",
  withObject({}, async (object) => {
    await object.join({ id: "ada" });
    await object.hub.broadcast("x");
    await object.hub.fetch(get("nothing"));
    const answer = await object.otherHub({ name: () => object.name }).metrics(get("metrics"));
    const families = parseExposition(await answer.text());
    expect(families.get("fanwire_clients")?.samples).toEqual([{ labels: {}, value: 1 }]);
    expect(families.get("fanwire_events_published_total")?.samples[0]?.value).toBe(1);
    expect(families.get("fanwire_engine_up")?.samples[0]?.value).toBe(1);
    expect(families.get("fanwire_disconnects_total")?.samples.length).toBe(9);
    expect([families.has("fanwire_failures_total"), families.has("fanwire_pending_requests")]).toEqual([false, false]);
    const unreachable = hub({ getByName: () => ({ serve: () => Promise.reject(new Error("inner text")) }) });
    expect([await problemOf(await unreachable.metrics(get("metrics")))]).toEqual(["engine-down"]);
  }),
);

test(
  "instrument(hub): records its publishes, but not the counts of the object, which every isolate would repeat",
  withObject({}, async (object) => {
    const telemetry = new Telemetry();
    try {
      const hub = instrument(object.hub, telemetry.providers);
      const { id } = await hub.broadcast("x", { channels: "a" });
      await hub.broadcastTo("nobody", "x").catch(() => undefined);
      const spans = await telemetry.spans();
      expect(spans.map(({ attributes }) => [attributes["messaging.message.id"], attributes["error.type"]])).toEqual([
        [id, undefined],
        [undefined, "unknown-client"],
      ]);
      const metrics = await telemetry.metrics();
      expect([...metrics.keys()]).toEqual(["messaging.client.sent.messages", "messaging.client.operation.duration"]);
      expect(pointsOf(metrics, "messaging.client.sent.messages").map(([, value]) => value)).toEqual([1, 1]);
      expect((await hub.stats()).published).toBe(1);
    } finally {
      await telemetry.close();
    }
  }),
);
