import { expect, test } from "vitest";
import { instrument } from "../../src/otel.ts";
import { hub } from "../../src/workers/index.ts";
import { readExposition } from "../support/monitoring/prometheus-parser.ts";
import { pointsOf, Telemetry } from "../support/monitoring/telemetry.ts";
import { problemOf } from "../support/test-broker.ts";
import { room } from "./support/room.ts";

// What a hub tells a monitor: of its object, and what only the isolate knows is left out.

const get = (path: string): Request => new Request(`https://fanwire.test/${path}`);

test(
  "hub.health: 200 while the object takes work, 503 when it is closing, 405 without asking it",
  room({}, async (room) => {
    const { health } = room.hub;
    const well = await health(get("health"));
    expect([well.status, await well.json()]).toEqual([200, { status: "up" }]);
    expect((await health(new Request("https://fanwire.test/", { method: "POST" }))).status).toBe(405);
    await room.inside((object) => object.close());
    const ill = await health(get("health"));
    expect([ill.status, ill.headers.get("cache-control"), await problemOf(ill)]).toEqual([503, "no-store", "closed"]);
    expect((await room.hub.stats()).failures).toEqual({});
    await room.evict();
    expect((await health(get("health"))).status).toBe(200);
  }),
);

test(
  "hub.health: an object that does not answer is 503, and tells nothing of why",
  room({}, async () => {
    const away = { getByName: () => ({ serve: () => Promise.reject(new Error("inner text")) }) };
    const ill = await hub(away).health(get("health"));
    expect([ill.status, ill.headers.get("retry-after")]).toEqual([503, "1"]);
    expect(await ill.text()).not.toContain("inner text");
  }),
);

test(
  "hub.health: asks the object that the request is for, and a name() that fails is told to onError alone",
  room({}, async (room) => {
    const heard: string[] = [];
    const named: string[] = [];
    const inner = room.otherHub({
      name: ({ url }) => {
        if (url.endsWith("broken")) throw new Error("inner text");
        named.push(url);
        return room.name;
      },
      onError: ({ error, stage }) => heard.push(`${stage}: ${(error as Error).message}`),
    });
    expect((await inner.health(get("health"))).status).toBe(200);
    expect(named).toEqual(["https://fanwire.test/health"]);
    const ill = await inner.health(get("broken"));
    expect([ill.status, await ill.text()]).toEqual([500, expect.not.stringContaining("inner text")]);
    expect(heard).toEqual(["request: inner text"]);
  }),
);

test(
  "hub.metrics: what the object of the request counts, and not what the isolate does",
  room({}, async (room) => {
    await room.join({ id: "ada" });
    await room.hub.broadcast("x");
    await room.hub.fetch(get("nothing"));
    const answer = await room.otherHub({ name: () => room.name }).metrics(get("metrics"));
    const families = readExposition(await answer.text());
    expect(families.get("fanwire_clients")?.samples).toEqual([{ labels: {}, value: 1 }]);
    expect(families.get("fanwire_events_published_total")?.samples[0]?.value).toBe(1);
    expect(families.get("fanwire_engine_up")?.samples[0]?.value).toBe(1);
    expect(families.get("fanwire_disconnects_total")?.samples.length).toBe(8);
    expect([families.has("fanwire_failures_total"), families.has("fanwire_pending_requests")]).toEqual([false, false]);
    const away = hub({ getByName: () => ({ serve: () => Promise.reject(new Error("inner text")) }) });
    expect([await problemOf(await away.metrics(get("metrics")))]).toEqual(["engine-down"]);
  }),
);

test(
  "instrument of a hub: its sending is told, and what the object counts is not, because every isolate would tell the same",
  room({}, async (room) => {
    const telemetry = new Telemetry();
    try {
      const hub = instrument(room.hub, telemetry.providers);
      const { id } = await hub.broadcast("x", { channels: "a" });
      await hub.broadcastTo("nobody", "x").catch(() => undefined);
      const spans = await telemetry.spans();
      expect(spans.map(({ attributes }) => [attributes["messaging.message.id"], attributes["error.type"]])).toEqual([
        [id, undefined],
        [undefined, "unknown-client"],
      ]);
      const told = await telemetry.metrics();
      expect([...told.keys()]).toEqual(["messaging.client.sent.messages", "messaging.client.operation.duration"]);
      expect(pointsOf(told, "messaging.client.sent.messages").map(([, value]) => value)).toEqual([1, 1]);
      expect((await hub.stats()).published).toBe(1);
    } finally {
      await telemetry.end();
    }
  }),
);
