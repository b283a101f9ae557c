// `POST /subscribe` and `POST /unsubscribe`: a page changes the channels of its own stream, and presents the secret of the stream.
import { expect, test } from "vitest";
import { brokerOf } from "../../../src/broker/broker.ts";
import { BrokerCore } from "../../../src/broker/broker-core.ts";
import { resolveOptions } from "../../../src/broker/options.ts";
import type { Broker } from "../../../src/index.ts";
import { changesOf, secretOf } from "../../support/clients/connection.ts";
import { withBroker } from "../../support/test-broker.ts";

async function post(
  broker: Broker,
  path: string,
  body: Record<string, string | string[]> | string,
  init: RequestInit = {},
) {
  const form =
    typeof body === "string"
      ? body
      : new URLSearchParams(Object.entries(body).flatMap(([k, v]) => [v].flat().map((x) => [k, x])));
  const response = await broker.fetch(
    new Request(`https://fanwire.test${path}`, { method: "POST", body: form, ...init }),
  );
  return [response.status, (await response.json()) as { code?: string; position?: string }] as const;
}

test(
  "POST /subscribe and /unsubscribe: a page that presents its stream's secret changes this stream",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const [tab, other] = [await setup.join(broker, { id: "ann" }), await setup.join(broker, { id: "ann" })];
    const secret = secretOf(tab);
    expect(secret).toMatch(/^[0-9a-v]{26}$/);
    expect(secretOf(other)).not.toBe(secret);
    const [status, answer] = await post(broker, "/subscribe", { secret, channel: ["a", "b"] });
    expect([status, answer]).toEqual([200, { position: (await broker.history({ limit: 0 })).position }]);
    expect(await post(broker, "/unsubscribe?channel=b", { secret })).toEqual([200, {}]);
    await broker.broadcast("1", { channels: "a" });
    await broker.broadcast("2", { channels: "b" });
    await broker.broadcast("end");
    expect(await tab.readThrough("end")).toEqual(["1", "end"]);
    expect(await other.readThrough("end")).toEqual(["end"]);
    expect(changesOf(tab)).toEqual([
      { channels: ["a", "b"], added: ["a", "b"], removed: [] },
      { channels: ["a"], added: [], removed: ["b"] },
    ]);
  }),
);

test(
  "POST /subscribe: authorize is asked about the channels that are added, and the secret counts for its subject only",
  withBroker(async (setup) => {
    const asked: unknown[] = [];
    const broker = setup.broker({
      authorize: ({ request, action, channels, clientId }) => {
        const subject = request.headers.get("x-user") ?? "";
        asked.push([action, channels, clientId]);
        return { subject, clientId: subject, channels: subject === "ann" ? ["a", "b"] : ["a"] };
      },
    });
    const ann = await setup.join(broker, { channel: "a", headers: { "x-user": "ann" } });
    const secret = secretOf(ann);
    const as = (user: string): RequestInit => ({ headers: { "x-user": user } });
    expect((await post(broker, "/subscribe", { secret, channel: "b" }, as("ann")))[0]).toBe(200);
    expect(asked).toEqual([
      ["connect", ["a"], undefined],
      ["connect", ["b"], undefined],
    ]);
    expect(await post(broker, "/subscribe", { secret, channel: "c" }, as("ann"))).toMatchObject([
      403,
      { code: "forbidden" },
    ]);
    expect(await post(broker, "/subscribe", { secret, channel: "a" }, as("bob"))).toMatchObject([
      404,
      { code: "unknown-stream" },
    ]);
    expect(await post(broker, "/unsubscribe", { secret, channel: "a" }, as("bob"))).toMatchObject([
      404,
      { code: "unknown-stream" },
    ]);
    await broker.broadcast("end", { channels: "b" });
    expect(await ann.readThrough("end")).toEqual(["end"]);
    // A channel that is no longer granted can still be left.
    expect((await post(broker, "/unsubscribe", { secret, channel: "c" }, as("ann")))[0]).toBe(200);
  }),
);

test(
  "POST /subscribe: no secret of a stream that has ended is kept",
  withBroker(async (setup) => {
    const core = new BrokerCore(resolveOptions({ engine: setup.engine() }));
    const broker = brokerOf(core);
    const clients = [await setup.join(broker), await setup.join(broker)];
    const { bySecret } = core.open().registry;
    expect([...bySecret.keys()]).toEqual(clients.map(secretOf));
    for (const client of clients) await client.leave();
    expect(bySecret.size).toBe(0);
    await broker.close();
  }),
);

test(
  "POST /subscribe: a secret counts no longer when its stream has ended",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker, { id: "ann" });
    const secret = secretOf(client);
    await client.leave();
    expect(await post(broker, "/subscribe", { secret, channel: "a" })).toMatchObject([404, { code: "unknown-stream" }]);
    await broker.close();
    expect(await post(broker, "/subscribe", { secret, channel: "a" })).toMatchObject([503, { code: "closed" }]);
  }),
);

for (const [name, path, body, status, code] of [
  ["no secret", "/subscribe", { channel: "a" }, 400, "bad-request"],
  ["an unknown secret", "/subscribe", { secret: "x".repeat(26), channel: "a" }, 404, "unknown-stream"],
  ["two secrets", "/subscribe", { secret: ["x", "y"], channel: "a" }, 400, "bad-request"],
  ["the secret in the URL", "/subscribe?secret=x", { channel: "a" }, 400, "bad-request"],
  ["no channel", "/subscribe", { secret: "x" }, 400, "bad-channel"],
  ["no channel", "/unsubscribe", { secret: "x" }, 400, "bad-channel"],
  ["a bad channel", "/subscribe", { secret: "x", channel: "fanwire-common" }, 400, "bad-channel"],
  ["too many channels", "/subscribe", { secret: "x", channel: ["a", "b", "c", "d"] }, 400, "bad-channel"],
  ["an unknown parameter", "/subscribe", { secret: "x", channel: "a", chanel: "b" }, 400, "bad-request"],
] as const) {
  test(
    `POST ${path}: ${name} is ${status} ${code}`,
    withBroker(async (setup) => {
      const broker = setup.broker({ maxChannelsPerClient: 3 });
      await setup.join(broker, { id: "ann" });
      expect(await post(broker, path, body as Record<string, string>)).toMatchObject([status, { code }]);
      expect(broker.clients()[0]?.channels).toEqual([]);
    }),
  );
}

test(
  "POST /subscribe: a body that is no form is 415, another method 405, and a path that is turned off 404",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const json = { headers: { "content-type": "application/json" } };
    expect(await post(broker, "/subscribe", "{}", json)).toMatchObject([415, { code: "unsupported-media-type" }]);
    const get = await broker.fetch(new Request("https://fanwire.test/subscribe"));
    expect([get.status, get.headers.get("allow")]).toEqual([405, "POST, OPTIONS"]);
    const closed = setup.broker({ paths: { subscribe: false, unsubscribe: false } });
    const client = await setup.join(closed, { id: "ann" });
    expect(JSON.parse(client.control("ready")[0]?.data ?? "")).not.toHaveProperty("secret");
    expect(await post(closed, "/subscribe", { secret: "x", channel: "a" })).toMatchObject([404, { code: "not-found" }]);
  }),
);
