// Batches over sockets, on every server: the publisher of the client, and a line that is refused.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { publisher } from "../../src/client/index.ts";
import { SocketClient } from "../support/clients/socket-client.ts";
import { platforms, type Server, startServer } from "../support/servers/server.ts";

describe.each(platforms)("a batch on %s", (platform) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer(platform);
  });
  afterAll(() => server.stop());

  test("is published in order, once, and answered with its ids; a wrong line publishes nothing", async () => {
    const broker = await server.createBroker();
    const reader = await new SocketClient(`${server.url}${broker.path("connect")}?channel=a`).untilReady();
    const events = publisher(server.url + broker.path("broadcast"), { token: "secret" });
    const lines = Array.from({ length: 200 }, (_, n) => ({ data: `event ${n}`, channels: "a" }));
    await expect(events.batch([...lines, { data: "x", event: "open" }])).rejects.toMatchObject({
      code: "bad-event-type",
      status: 400,
    });
    const { ids } = await events.batch(lines, { idempotencyKey: "k" });
    expect(new Set(ids).size).toBe(200);
    expect((await events.batch(lines, { idempotencyKey: "k" })).ids).toEqual(ids);
    await events.broadcast("end", { channels: "a" });
    await reader.until(({ data }) => data.at(-1) === "end");
    expect(reader.data).toEqual([...lines.map(({ data }) => data), "end"]);
    reader.leave();
  });
});
