// Results of `authorize`: what each one allows a client.
import { expect, test } from "vitest";
import type { Authorize, AuthorizeResult, ClientInfo } from "../../../src/index.ts";
import { expectUnused, statusAndCode, testReading } from "../../support/http/entry-points.ts";
import { clientRequest, Recorder, turn, withBroker } from "../../support/test-broker.ts";

for (const [when, returning] of [
  [
    "at once",
    (result: AuthorizeResult): Authorize =>
      () =>
        result,
  ],
  [
    "later",
    (result: AuthorizeResult): Authorize =>
      () =>
        turn().then(() => result),
  ],
] as const) {
  testReading(`authorize: true, returned ${when}, allows exactly what was requested`, async ({ setup, connect }) => {
    const broker = setup.broker({ authorize: returning(true) });
    await connect(broker, { id: "one", channel: ["a", "b"] });
    const unnamed = await connect(broker);
    expect(broker.clients()).toMatchObject([
      { clientId: "one", channels: ["a", "b"] },
      { clientId: unnamed.clientId, channels: [] },
    ]);
    expect(unnamed.clientId).toMatch(/^[0-9a-v]{26}$/);
  });

  testReading(
    `authorize: false, returned ${when}, is 403 forbidden and registers no client`,
    async ({ setup, entryPoint }) => {
      const broker = setup.broker({ authorize: returning(false) });
      expect(await statusAndCode(await entryPoint(broker, clientRequest({ id: "one", channel: "a" })))).toEqual([
        403,
        "forbidden",
      ]);
      expectUnused(broker);
    },
  );

  testReading(`authorize: a Response, returned ${when}, is the answer`, async ({ setup, entryPoint }) => {
    const response = new Response("please log in", { status: 418, headers: { "x-mine": "yes" } });
    const broker = setup.broker({ authorize: returning(response) });
    const answer = await entryPoint(broker, clientRequest({ id: "one" }));
    expect([answer.status, answer.headers.get("x-mine"), await answer.text()]).toEqual([418, "yes", "please log in"]);
    expectUnused(broker);
  });
}

testReading(
  "authorize: a Response with status 200 is sent as it is, and registers no client",
  async ({ setup, entryPoint }) => {
    const broker = setup.broker({ authorize: () => new Response("not a stream") });
    expect(await (await entryPoint(broker, clientRequest())).text()).toBe("not a stream");
    expectUnused(broker);
  },
);

const channelGrants: readonly (readonly [
  granted: readonly string[] | undefined,
  requested: readonly string[],
  expected: unknown,
])[] = [
  [["a", "b"], [], ["a", "b"]],
  [["a", "b"], ["b"], ["b"]],
  [
    ["a", "b"],
    ["b", "a"],
    ["b", "a"],
  ],
  [["a", "b"], ["b", "b"], ["b"]],
  [["a", "b", "a"], [], ["a", "b"]],
  [["a", "b"], ["a", "c"], "forbidden"],
  [["a", "b"], ["c"], "forbidden"],
  // Names are compared exactly.
  [["a", "b"], ["A"], "forbidden"],
  [["a", "b"], ["a "], "forbidden"],
  [["ab"], ["a"], "forbidden"],
  [["*"], ["a"], "forbidden"],
  [[], [], []],
  [[], ["a"], "forbidden"],
  [undefined, [], []],
  [undefined, ["a"], "forbidden"],
];
testReading("Grant.channels: lists every channel that a client may read", async ({ setup, entryPoint, connect }) => {
  for (const [channels, requested, expected] of channelGrants) {
    const broker = setup.broker({ authorize: () => ({ channels }) });
    if (expected === "forbidden") {
      expect(await statusAndCode(await entryPoint(broker, clientRequest({ channel: requested })))).toEqual([
        403,
        expected,
      ]);
      expectUnused(broker);
    } else {
      await connect(broker, { channel: requested });
      expect(broker.clients().map((client) => client.channels)).toEqual([expected]);
    }
  }
});

testReading(
  "Grant.channels: events of other channels arrive neither live nor from the log",
  async ({ setup, connect }) => {
    const broker = setup.broker({ authorize: () => ({ channels: ["a"], clientId: "one" }) });
    const live = await connect(broker);
    for (const channel of ["a", "b", "one", "@one"]) await broker.broadcast(`for ${channel}`, { channels: channel });
    await broker.broadcastTo("one", "for me");
    await broker.broadcast("end");
    const replayed = await connect(broker, { query: { from: "earliest" } });
    for (const client of [live, replayed]) {
      await client.untilData("end");
      expect(client.data).toEqual(["for a", "for me", "end"]);
    }
  },
);

testReading("Grant.channels: a gap names only granted channels", async ({ setup, connect }) => {
  const broker = setup.broker({ log: { retention: { events: 1 } }, authorize: () => ({ channels: ["a"] }) });
  await connect(broker);
  for (const data of ["1", "2", "3"])
    for (const channel of ["a", "b"]) await broker.broadcast(data, { channels: channel });
  const client = await connect(broker, { lastEventId: "elsewhere-7" });
  const gap = JSON.parse((client.control("gap")[0] ?? (await client.untilControl("gap"))).data) as {
    channels: string[];
  };
  expect(gap.channels).not.toContain("b");
});

testReading(
  "Grant.channels: may have more than maxChannelsPerClient, if the client requests fewer",
  async ({ setup, connect }) => {
    const broker = setup.broker({ maxChannelsPerClient: 1, authorize: () => ({ channels: ["a", "b", "c"] }) });
    await connect(broker, { channel: "c" });
    expect(broker.clients()).toMatchObject([{ channels: ["c"] }]);
  },
);

testReading(
  "Grant.channels: the broker copies the list, so the application may change it later",
  async ({ setup, connect }) => {
    const channels = ["a"];
    const broker = setup.broker({ authorize: () => ({ channels }) });
    await connect(broker);
    channels.push("b");
    await connect(broker);
    expect(broker.clients()).toMatchObject([{ channels: ["a"] }, { channels: ["a", "b"] }]);
  },
);

const idGrants: readonly (readonly [
  result: AuthorizeResult,
  requested: string | undefined,
  expected: string | RegExp | undefined,
])[] = [
  [{ clientId: "one" }, undefined, "one"],
  [{ clientId: "one" }, "one", "one"],
  [{ clientId: "one" }, "two", undefined],
  [{ clientId: "one" }, "One", undefined],
  [{}, "one", undefined],
  [{ clientId: undefined }, "one", undefined],
  [{}, undefined, /^[0-9a-v]{26}$/],
  [true, "one", "one"],
  [true, undefined, /^[0-9a-v]{26}$/],
];
testReading("Grant.clientId: is the only id that the client may use", async ({ setup, entryPoint, connect }) => {
  for (const [result, id, expected] of idGrants) {
    const broker = setup.broker({ authorize: () => result });
    const requested = id === undefined ? {} : { id };
    if (expected === undefined) {
      expect(await statusAndCode(await entryPoint(broker, clientRequest(requested)))).toEqual([403, "forbidden"]);
      expectUnused(broker);
    } else {
      const client = await connect(broker, requested);
      expect(client.clientId).toMatch(expected);
      expect(broker.clients()).toMatchObject([{ clientId: client.clientId }]);
      expect(await broker.broadcastTo(client.clientId, "x")).toMatchObject({ clients: 1 });
    }
  }
});

test(
  "ClientOverrides: a grant has to allow clientId and channels too",
  withBroker(async (setup) => {
    const broker = setup.broker({ authorize: () => ({ clientId: "one", channels: ["a"] }) });
    for (const overrides of [{ clientId: "two" }, { channels: ["b"] }, { channels: "b" }])
      expect((await broker.clientHandler(clientRequest({ id: "one", channel: "a" }), overrides)).status).toBe(403);
    expectUnused(broker);
  }),
);

testReading(
  "Grant.subject: is shown by clients(), onConnect and onDisconnect, and absent if there is none",
  async ({ setup, connect }) => {
    const connected: ClientInfo[] = [];
    const disconnects = new Recorder<{ client: ClientInfo }>();
    const broker = setup.broker({
      authorize: ({ clientId }) => (clientId === undefined ? { subject: "ada" } : true),
      onConnect: ({ client }) => connected.push(client),
      onDisconnect: disconnects.record,
    });
    const ada = await connect(broker);
    await connect(broker, { id: "anybody" });
    await ada.leave();
    const { client } = await disconnects.next();
    expect([client.subject, connected[0]?.subject]).toEqual(["ada", "ada"]);
    expect(connected[1]).not.toHaveProperty("subject");
    expect(broker.clients()).toEqual([connected[1]]);
  },
);
