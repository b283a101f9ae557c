// Results of `authorize`: what each one allows a client, and what happens with an invalid one.
import { expect, test } from "vitest";
import {
  type Authorize,
  type AuthorizeResult,
  type Broker,
  BrokerError,
  type ClientInfo,
  type ErrorCode,
} from "../../../src/index.ts";
import { Connection } from "../../support/clients/connection.ts";
import {
  ACCEPT_ANY,
  createCountedBody,
  expectUnused,
  publishEntryPoints,
  type ReportedError,
  readEntryPoints,
  SECRET,
  statusAndCode,
  testPublishing,
  testReading,
} from "../../support/http/entry-points.ts";
import { clientRequest, eventRequest, Recorder, turn, withBroker } from "../../support/test-broker.ts";

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

// Invalid results.

const wrongResults: readonly (readonly [what: string, result: unknown])[] = [
  ["undefined", undefined],
  ["null", null],
  ["a string", "yes"],
  ["a number", 1],
  ["zero", 0],
  ["a symbol", Symbol("yes")],
  ["a function", () => true],
  ["an unknown field", { channel: ["a"] }],
  ["an unknown field next to valid ones", { channels: ["a"], role: "admin" }],
  ["a NaN expiresAt", { channels: ["a"], expiresAt: Number.NaN }],
  ["an invalid Date", { channels: ["a"], expiresAt: new Date("no date") }],
  ["a textual expiresAt", { channels: ["a"], expiresAt: "2999-01-01" }],
  ["a null expiresAt", { channels: ["a"], expiresAt: null }],
  ["an empty subject", { channels: ["a"], subject: "" }],
  ["a subject that is a number", { channels: ["a"], subject: 7 }],
  ["a null subject", { channels: ["a"], subject: null }],
  ["channels that are a string", { channels: "a" }],
  ["channels that are null", { channels: null }],
  ["channels that are a Set", { channels: new Set(["a"]) }],
  ["a client id that is not a string", { channels: ["a"], clientId: 7 }],
  ["a null client id", { channels: ["a"], clientId: null }],
  // These have no keys of their own, like an empty grant.
  ["a list", []],
  ["an Error that is returned and not thrown", new Error("denied")],
  ["a Map", new Map([["channels", ["a"]]])],
  ["an object that only inherits a grant", Object.create({ channels: ["a"] })],
  // The client did not choose these names, so none of them is its fault.
  ["an empty client id", { channels: ["a"], clientId: "" }],
  ["a client id with a newline", { channels: ["a"], clientId: "b\nc" }],
];
for (const [what, result] of wrongResults) {
  test(
    `authorize: ${what} is an invalid result: 500, onError is called, no client is registered and no event published`,
    withBroker(async (setup) => {
      const body = createCountedBody();
      const requests: readonly ((broker: Broker) => Promise<Response>)[] = [
        ...readEntryPoints.map(
          ([, entryPoint]) =>
            (broker: Broker) =>
              entryPoint(broker, clientRequest()),
        ),
        ...publishEntryPoints.map(
          ([, entryPoint]) =>
            (broker: Broker) =>
              entryPoint(broker, eventRequest(null, "?channel=a", body.init)),
        ),
      ];
      for (const send of requests) {
        const errors = new Recorder<ReportedError>();
        const broker = setup.broker({ authorize: async () => result as AuthorizeResult, onError: errors.record });
        expect(await statusAndCode(await send(broker))).toEqual([500, "internal"]);
        expect(await errors.next()).toMatchObject({ stage: "authorize" });
        expectUnused(broker);
      }
      expect(body.pulls()).toBe(0);
    }),
  );
}

// Where users name rooms and invite each other, one of them chooses a name that is in the grant of another.

const badChannels: readonly (readonly [what: string, channels: readonly unknown[], named: string])[] = [
  ["an empty name", ["a", ""], '""'],
  ["a reserved name", ["a", "fanwire-secret"], '"fanwire-secret"'],
  ["a name with a newline", ["a", "secret\nroom"], '"secret\\nroom"'],
  ["a name that is too long", ["a", `secret${"x".repeat(256)}`], `"secret${"x".repeat(34)}…"`],
  ["something that is not a string", ["a", 7], "number"],
  ["more than maxChannelsPerClient names", Array.from({ length: 101 }, (_, index) => `secret-${index}`), "101"],
];
for (const [what, channels, named] of badChannels) {
  testReading(
    `authorize: a grant with ${what} is 503 bad-grant, an EventSource comes back, and only onError receives the name`,
    async ({ setup, entryPoint }) => {
      const errors = new Recorder<ReportedError>();
      const authorize = async (): Promise<AuthorizeResult> => ({ channels }) as AuthorizeResult;
      const broker = setup.broker({ authorize, onError: errors.record });
      const answer = await entryPoint(broker, clientRequest({ headers: ACCEPT_ANY }));
      expect([answer.status, answer.headers.get("retry-after")]).toEqual([503, "2"]);
      const text = await answer.text();
      expect(JSON.parse(text)).toMatchObject({ code: "bad-grant" });
      expect(text).not.toMatch(/secret|101/);
      const stream = await entryPoint(broker, clientRequest());
      expect(stream.status).toBe(200);
      const events = await stream.text();
      expect(events).toContain('"reason":"bad-grant"');
      expect(events.replace(/retry: \d+/, "")).not.toMatch(/secret|101/);
      for (let count = 0; count < 2; count++) {
        const { stage, error } = await errors.next();
        expect(stage).toBe("authorize");
        expect((error as Error).message).toContain(named);
        expect((error as Error).message).toContain("broker.checkChannel");
      }
      expectUnused(broker);
    },
  );
}

testPublishing(
  "authorize: a grant with a bad channel is 503 bad-grant for a publisher as well",
  async (setup, entryPoint) => {
    const errors = new Recorder<ReportedError>();
    const broker = setup.broker({ authorize: () => ({ channels: ["a", "fanwire-secret"] }), onError: errors.record });
    const answer = await entryPoint(broker, eventRequest("x", "?channel=a"));
    expect([answer.status, answer.headers.get("retry-after")]).toEqual([503, "2"]);
    const text = await answer.text();
    expect(JSON.parse(text)).toMatchObject({ code: "bad-grant" });
    expect(text).not.toContain("secret");
    expect(((await errors.next()).error as Error).message).toContain('"fanwire-secret"');
    expectUnused(broker);
  },
);

const thrown: readonly unknown[] = [
  new Error(SECRET),
  new TypeError(SECRET, { cause: new Error(SECRET) }),
  Object.assign(new Error(SECRET), {
    code: "unauthorized",
    status: 200,
    name: "BrokerError",
    headers: { "x-leak": SECRET },
  }),
  SECRET,
  { message: SECRET },
  undefined,
  null,
  new Response(SECRET, { status: 200 }),
];
for (const [how, fail] of [
  [
    "throws",
    (error: unknown): Authorize =>
      () => {
        throw error;
      },
  ],
  [
    "rejects with",
    (error: unknown): Authorize =>
      () =>
        Promise.reject(error),
  ],
] as const) {
  testReading(
    `authorize: an error that it ${how} is 500 and goes to onError, and its message is not sent`,
    async ({ setup, entryPoint }) => {
      for (const error of thrown) {
        const errors = new Recorder<ReportedError>();
        const broker = setup.broker({ authorize: fail(error), onError: errors.record });
        const answer = await entryPoint(broker, clientRequest());
        expect([answer.status, answer.headers.get("x-leak")]).toEqual([500, null]);
        const text = await answer.text();
        expect(JSON.parse(text)).toMatchObject({ code: "internal" });
        expect(text).not.toContain("secret");
        expect(await errors.next()).toEqual({ stage: "authorize", error });
        expectUnused(broker);
      }
    },
  );

  testPublishing(
    `authorize: an error that it ${how} is 500 and goes to onError, and its message is not sent`,
    async (setup, entryPoint) => {
      for (const error of thrown) {
        const errors = new Recorder<ReportedError>();
        const broker = setup.broker({ authorize: fail(error), onError: errors.record });
        const answer = await entryPoint(broker, eventRequest("x"));
        const text = await answer.text();
        expect(JSON.parse(text)).toMatchObject({ status: 500, code: "internal" });
        expect(text).not.toContain("secret");
        expect(await errors.next()).toEqual({ stage: "authorize", error });
        expectUnused(broker);
      }
    },
  );

  testReading(
    `authorize: a BrokerError that it ${how} is answered with its code and headers`,
    async ({ setup, entryPoint }) => {
      const errors: ReportedError[] = [];
      const codes: readonly (readonly [ErrorCode, number])[] = [
        ["unauthorized", 401],
        ["forbidden", 403],
        ["not-found", 404],
        ["bad-request", 400],
        ["at-capacity", 503],
      ];
      for (const [code, status] of codes) {
        const error = new BrokerError(code, "for the client", {
          cause: new Error(SECRET),
          headers: { "x-mine": "yes" },
        });
        const broker = setup.broker({ authorize: fail(error), onError: (event) => errors.push(event) });
        const answer = await entryPoint(broker, clientRequest({ headers: ACCEPT_ANY }));
        expect([answer.status, answer.headers.get("x-mine")]).toEqual([status, "yes"]);
        expect(await answer.json()).toEqual({
          title: code.replaceAll("-", " "),
          status,
          code,
          detail: "for the client",
        });
        expectUnused(broker);
      }
      expect(errors).toEqual([]);
    },
  );

  testReading(
    `authorize: after an authorize-unavailable that it ${how}, the client comes back later, and onError is called`,
    async ({ setup, entryPoint }) => {
      const errors = new Recorder<ReportedError>();
      const error = new BrokerError("authorize-unavailable", "come back", { cause: new Error(SECRET) });
      const broker = setup.broker({ retry: 10_000, authorize: fail(error), onError: errors.record });
      const answer = await entryPoint(broker, clientRequest({ headers: ACCEPT_ANY }));
      expect(answer.headers.get("retry-after")).toBe("10");
      expect(await statusAndCode(answer)).toEqual([503, "authorize-unavailable"]);
      expect(await errors.next()).toEqual({ stage: "authorize", error });
      const stream = new Connection(await entryPoint(broker, clientRequest()), new AbortController());
      expect([await stream.ended(), stream.retries.length]).toEqual(["closed", 1]);
      expectUnused(broker);
    },
  );
}

test(
  "authorize: an option that is not a function is a TypeError, so it cannot leave the broker open",
  withBroker(async (setup) => {
    for (const authorize of [null, true, false, "bearer", {}, 0, ""])
      expect(() => setup.broker({ authorize: authorize as unknown as Authorize })).toThrow(TypeError);
  }),
);
