// The names of query parameters: a mistake must not send an event to everybody, or leave a stream silent.
import { expect, test } from "vitest";
import { checkParameters } from "../../../src/http/query.ts";
import { testPublishing, testReading } from "../../support/http/entry-points.ts";
import { clientRequest, eventRequest, withBroker } from "../../support/test-broker.ts";

interface Problem {
  readonly code: string;
  readonly detail: string;
}
const bearer = { headers: { authorization: "Bearer secret" } };

for (const [name, meant] of [
  ["chanel", "channel"],
  ["channels", "channel"],
  ["Channel", "channel"],
  ["CHANNEL", "channel"],
  ["channel[]", "channel"],
  ["channle", "channel"],
  ["channelId", "channel"],
  ["ID", "id"],
  ["ids", "id"],
  ["clientId", "id"],
  ["client_id", "id"],
  ["to", "id"],
  ["types", "type"],
  ["tpye", "known are channel, id, type"],
  ["typ", "type"],
  ["event", "type"],
  ["retry", "known are channel, id, type"],
  ["lastEventId", "known are channel, id, type"],
  ["from", "known are channel, id, type"],
  ["", "known are channel, id, type"],
  ["constructor", "known are channel, id, type"],
  ["__proto__", "known are channel, id, type"],
] as const) {
  testPublishing(
    `?${name}= is 400 bad-request, says "${meant}", and nobody receives the event`,
    async (setup, entryPoint) => {
      const broker = setup.broker({ publishToken: "secret" });
      const client = await setup.join(broker, { id: "private", channel: ["private", "public"] });
      const answer = await entryPoint(broker, eventRequest("secret", `/broadcast?${name}=private`, bearer));
      const { code, detail } = (await answer.json()) as Problem;
      expect([answer.status, code]).toEqual([400, "bad-request"]);
      expect(detail).toContain(JSON.stringify(name));
      expect(detail).toContain(meant.startsWith("known") ? meant : `did you mean ${meant}?`);
      expect(detail).toContain("allowQuery");
      await broker.broadcast("end");
      await client.untilData("end");
      expect(client.data).toEqual(["end"]);
    },
  );
}

testPublishing(
  "a known parameter next to an unknown one is refused as well, and an unknown one with overrides too",
  async (setup, entryPoint) => {
    const broker = setup.broker({ publishToken: "secret" });
    const request = (query: string) => eventRequest("x", `/broadcast${query}`, bearer);
    expect((await entryPoint(broker, request("?channel=a&chanel=b"))).status).toBe(400);
    expect((await broker.eventHandler(request("?chanel=b"), { channels: "a" })).status).toBe(400);
    expect(broker.stats().published).toBe(0);
  },
);

testPublishing("allowQuery lets the application's own parameters through, and no others", async (setup, entryPoint) => {
  const broker = setup.broker({ publishToken: "secret", allowQuery: ["ticket", "channels"] });
  const client = await setup.join(broker, { channel: "a" });
  const status = async (query: string) =>
    (await entryPoint(broker, eventRequest("x", `/broadcast${query}`, bearer))).status;
  expect(await status("?ticket=1&channel=a&ticket=2&channels=b")).toBe(200);
  expect(await status("?tickets=1&channel=a")).toBe(400);
  expect(await status("?Ticket=1&channel=a")).toBe(400);
  await broker.broadcast("end");
  await client.untilData("end");
  expect(client.data).toEqual(["x", "end"]);
});

for (const [name, meant] of [
  ["channels", "channel"],
  ["chanel", "channel"],
  ["Channel", "channel"],
  ["channel[]", "channel"],
  // The first letter is Cyrillic.
  ["\u0441hannel", "channel"],
  ["lasteventid", "lastEventId"],
  ["last-event-id", "lastEventId"],
  ["LastEventID", "lastEventId"],
  ["lastEventIds", "lastEventId"],
  ["clientId", "id"],
  ["client-id", "id"],
  ["Id", "id"],
  ["ids", "id"],
  ["From", "from"],
  ["fom", "from"],
  ["Last", "last"],
  ["last[]", "last"],
] as const) {
  testReading(`?${name}= looks like ?${meant}=, and is 400 bad-request`, async ({ setup, entryPoint }) => {
    const broker = setup.broker();
    const answer = await entryPoint(broker, clientRequest({ query: { [name]: "a" } }));
    const { code, detail } = (await answer.json()) as Problem;
    expect([answer.status, code]).toEqual([400, "bad-request"]);
    expect(detail).toContain(`did you mean ${meant}?`);
    const head = new Request(clientRequest({ query: { [name]: "a" } }), { method: "HEAD" });
    expect((await entryPoint(broker, head)).status).toBe(400);
    expect(broker.stats()).toMatchObject({ clients: 0, failures: { "bad-request": 2 } });
  });
}

testReading("parameters that look like none of ours belong to the application", async ({ setup, connect }) => {
  const broker = setup.broker();
  const names = [
    "ticket",
    "token",
    "room",
    "event",
    "to",
    "type",
    "form",
    "uid",
    "i",
    "ip",
    "eventId",
    "since",
    "utm_id",
    "lat",
    "list",
    "past",
  ];
  await connect(broker, {
    query: Object.fromEntries([...names, "v", "", "constructor"].map((name) => [name, "a"])),
  });
  expect(broker.stats().clients).toBe(1);
});

testReading("allowQuery lets a parameter through that looks like a known one", async ({ setup, connect }) => {
  const broker = setup.broker({ allowQuery: ["channels"] });
  const client = await connect(broker, { channel: "a", query: { channels: "b" } });
  await broker.broadcast("b", { channels: "b" });
  await broker.broadcast("a", { channels: "a" });
  expect((await client.nextData()).data).toBe("a");
});

for (const name of ["id", "lastEventId", "from", "last"] as const) {
  testReading(`?${name}= given twice is 400, even if both are the same`, async ({ setup, entryPoint }) => {
    const broker = setup.broker();
    const request = clientRequest({ query: { [name]: "earliest" } });
    const twice = new Request(`${request.url}&${name}=earliest`, request);
    expect((await entryPoint(broker, twice)).status).toBe(400);
    expect(broker.stats().clients).toBe(0);
  });
}

for (const [query, why] of [
  ["last=0", "1 to 1000"],
  ["last=-1", "1 to 1000"],
  ["last=1001", "1 to 1000"],
  ["last=99999999999999999999", "1 to 1000"],
  ["last=1.5", "1 to 1000"],
  ["last=1e2", "1 to 1000"],
  ["last=ten", "1 to 1000"],
  ["last=0x10", "1 to 1000"],
  ["last=%201", "1 to 1000"],
  ["from=newest", "latest"],
  ["from=Latest", "latest"],
  ["last=5&from=latest", "or last"],
  ["from=earliest&last=5", "or last"],
] as const) {
  testReading(`?${query} is 400 bad-request, also with an id`, async ({ setup, entryPoint }) => {
    const broker = setup.broker();
    const { id } = await broker.broadcast("x");
    for (const lastEventId of ["", id]) {
      const request = clientRequest({ lastEventId });
      const answer = await entryPoint(broker, new Request(`${request.url}?${query}`, request));
      const { code, detail } = (await answer.json()) as Problem;
      expect([answer.status, code]).toEqual([400, "bad-request"]);
      expect(detail).toContain(why);
    }
    expect(broker.stats()).toMatchObject({ clients: 0, failures: { "bad-request": 2 } });
  });
}

testReading("?last= takes 1 to 1000, and an empty one counts as absent", async ({ setup, connect }) => {
  const broker = setup.broker();
  await broker.broadcast("x");
  for (const last of ["1", "1000", "0050"])
    expect((await (await connect(broker, { query: { last } })).next()).data).toBe("x");
  const live = await connect(broker, { query: { last: "" } });
  await broker.broadcast("y");
  expect((await live.next()).data).toBe("y");
});

test("checkParameters(): a name of any length costs no more than the longest known name", () => {
  const query = new URLSearchParams([["x".repeat(1_000_000), ""]]);
  expect(() => checkParameters(query, ["channel"], [], false)).not.toThrow();
});

test(
  "allowQuery: any other value than a list of names is a TypeError",
  withBroker(async (setup) => {
    for (const allowQuery of ["ticket", [1], {}, null, new Set(["a"])])
      expect(() => setup.broker({ allowQuery: allowQuery as string[] })).toThrow(TypeError);
  }),
);
