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
  ANY,
  expectUntouched,
  problem,
  publishing,
  type Reported,
  readDoors,
  reading,
  SECRET,
  witnessedBody,
  writeDoors,
} from "../../support/http/entry-points.ts";
import { clientRequest, eventRequest, scene, turn, Witness } from "../../support/test-broker.ts";

// What a verdict of `authorize` allows a client, and what is no verdict.

for (const [how, give] of [
  [
    "at once",
    (verdict: AuthorizeResult): Authorize =>
      () =>
        verdict,
  ],
  [
    "later",
    (verdict: AuthorizeResult): Authorize =>
      () =>
        turn().then(() => verdict),
  ],
] as const) {
  reading(`authorize: true, given ${how}, allows exactly what was asked for`, async ({ stage, enter }) => {
    const broker = stage.broker({ authorize: give(true) });
    await enter(broker, { id: "one", channel: ["a", "b"] });
    const nameless = await enter(broker);
    expect(broker.clients()).toMatchObject([
      { clientId: "one", channels: ["a", "b"] },
      { clientId: nameless.clientId, channels: [] },
    ]);
    expect(nameless.clientId).toMatch(/^[0-9a-v]{26}$/);
  });

  reading(`authorize: false, given ${how}, is 403 forbidden and registers nobody`, async ({ stage, door }) => {
    const broker = stage.broker({ authorize: give(false) });
    expect(await problem(await door(broker, clientRequest({ id: "one", channel: "a" })))).toEqual([403, "forbidden"]);
    expectUntouched(broker);
  });

  reading(`authorize: a Response, given ${how}, is the answer`, async ({ stage, door }) => {
    const given = new Response("please log in", { status: 418, headers: { "x-mine": "yes" } });
    const broker = stage.broker({ authorize: give(given) });
    const answer = await door(broker, clientRequest({ id: "one" }));
    expect([answer.status, answer.headers.get("x-mine"), await answer.text()]).toEqual([418, "yes", "please log in"]);
    expectUntouched(broker);
  });
}

reading("authorize: a Response of 200 is no stream, and registers nobody", async ({ stage, door }) => {
  const broker = stage.broker({ authorize: () => new Response("not a stream") });
  expect(await (await door(broker, clientRequest())).text()).toBe("not a stream");
  expectUntouched(broker);
});

const channelGrants: readonly (readonly [
  granted: readonly string[] | undefined,
  asked: readonly string[],
  got: unknown,
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
  // Names are compared as they are.
  [["a", "b"], ["A"], "forbidden"],
  [["a", "b"], ["a "], "forbidden"],
  [["ab"], ["a"], "forbidden"],
  [["*"], ["a"], "forbidden"],
  [[], [], []],
  [[], ["a"], "forbidden"],
  [undefined, [], []],
  [undefined, ["a"], "forbidden"],
];
reading("Grant.channels: is the whole list that a client may read", async ({ stage, door, enter }) => {
  for (const [channels, asked, got] of channelGrants) {
    const broker = stage.broker({ authorize: () => ({ channels }) });
    if (got === "forbidden") {
      expect(await problem(await door(broker, clientRequest({ channel: asked })))).toEqual([403, got]);
      expectUntouched(broker);
    } else {
      await enter(broker, { channel: asked });
      expect(broker.clients().map((client) => client.channels)).toEqual([got]);
    }
  }
});

reading("Grant.channels: nothing else arrives, neither live nor from the log", async ({ stage, enter }) => {
  const broker = stage.broker({ authorize: () => ({ channels: ["a"], clientId: "one" }) });
  const live = await enter(broker);
  for (const channel of ["a", "b", "one", "@one"]) await broker.broadcast(`for ${channel}`, { channels: channel });
  await broker.broadcastTo("one", "for me");
  await broker.broadcast("end");
  const replayed = await enter(broker, { query: { from: "earliest" } });
  for (const client of [live, replayed]) {
    await client.untilData("end");
    expect(client.data).toEqual(["for a", "for me", "end"]);
  }
});

reading("Grant.channels: a gap tells of no channel that is not granted", async ({ stage, enter }) => {
  const broker = stage.broker({ log: { retention: { events: 1 } }, authorize: () => ({ channels: ["a"] }) });
  await enter(broker);
  for (const data of ["1", "2", "3"])
    for (const channel of ["a", "b"]) await broker.broadcast(data, { channels: channel });
  const client = await enter(broker, { lastEventId: "elsewhere-7" });
  const gap = JSON.parse((client.control("gap")[0] ?? (await client.untilControl("gap"))).data) as {
    channels: string[];
  };
  expect(gap.channels).not.toContain("b");
});

reading(
  "Grant.channels: more than maxChannelsPerClient may be granted, and some of them asked for",
  async ({ stage, enter }) => {
    const broker = stage.broker({ maxChannelsPerClient: 1, authorize: () => ({ channels: ["a", "b", "c"] }) });
    await enter(broker, { channel: "c" });
    expect(broker.clients()).toMatchObject([{ channels: ["c"] }]);
  },
);

reading(
  "Grant.channels: a list that is granted again and again stays the application's own",
  async ({ stage, enter }) => {
    const channels = ["a"];
    const broker = stage.broker({ authorize: () => ({ channels }) });
    await enter(broker);
    channels.push("b");
    await enter(broker);
    expect(broker.clients()).toMatchObject([{ channels: ["a"] }, { channels: ["a", "b"] }]);
  },
);

const idGrants: readonly (readonly [
  verdict: AuthorizeResult,
  asked: string | undefined,
  got: string | RegExp | undefined,
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
reading("Grant.clientId: is the only id that a client may have", async ({ stage, door, enter }) => {
  for (const [verdict, id, got] of idGrants) {
    const broker = stage.broker({ authorize: () => verdict });
    const wish = id === undefined ? {} : { id };
    if (got === undefined) {
      expect(await problem(await door(broker, clientRequest(wish)))).toEqual([403, "forbidden"]);
      expectUntouched(broker);
    } else {
      const client = await enter(broker, wish);
      expect(client.clientId).toMatch(got);
      expect(broker.clients()).toMatchObject([{ clientId: client.clientId }]);
      expect(await broker.broadcastTo(client.clientId, "x")).toMatchObject({ clients: 1 });
    }
  }
});

test(
  "clientHandler: an id and channels of trusted code need the grant as well",
  scene(async (stage) => {
    const broker = stage.broker({ authorize: () => ({ clientId: "one", channels: ["a"] }) });
    for (const overrides of [{ clientId: "two" }, { channels: ["b"] }, { channels: "b" }])
      expect((await broker.clientHandler(clientRequest({ id: "one", channel: "a" }), overrides)).status).toBe(403);
    expectUntouched(broker);
  }),
);

reading(
  "Grant.subject: is in clients(), onConnect and onDisconnect, and nowhere without one",
  async ({ stage, enter }) => {
    const connected: ClientInfo[] = [];
    const left = new Witness<{ client: ClientInfo }>();
    const broker = stage.broker({
      authorize: ({ clientId }) => (clientId === undefined ? { subject: "ada" } : true),
      onConnect: ({ client }) => connected.push(client),
      onDisconnect: left.see,
    });
    const ada = await enter(broker);
    await enter(broker, { id: "anybody" });
    await ada.leave();
    const { client } = await left.next();
    expect([client.subject, connected[0]?.subject]).toEqual(["ada", "ada"]);
    expect(connected[1]).not.toHaveProperty("subject");
    expect(broker.clients()).toEqual([connected[1]]);
  },
);

// What is no verdict.

const wrongVerdicts: readonly (readonly [what: string, verdict: unknown])[] = [
  ["undefined", undefined],
  ["null", null],
  ["a string", "yes"],
  ["a number", 1],
  ["zero", 0],
  ["a symbol", Symbol("yes")],
  ["a function", () => true],
  ["an unknown key", { channel: ["a"] }],
  ["an unknown key beside good ones", { channels: ["a"], role: "admin" }],
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
  ["a channel that is no string", { channels: ["a", 7] }],
  ["a client id that is no string", { channels: ["a"], clientId: 7 }],
  ["a null client id", { channels: ["a"], clientId: null }],
  // Without keys, each of these reads like an empty grant.
  ["a list", []],
  ["an Error that was returned and not thrown", new Error("denied")],
  ["a Map", new Map([["channels", ["a"]]])],
  ["what only inherits a grant", Object.create({ channels: ["a"] })],
  // The client asked for none of these names, so none of them is its fault.
  ["an empty channel name", { channels: ["a", ""] }],
  ["a reserved channel name", { channels: ["a", "fanwire-common"] }],
  ["a channel name with a newline", { channels: ["a", "b\nc"] }],
  ["an empty client id", { channels: ["a"], clientId: "" }],
  ["a client id with a newline", { channels: ["a"], clientId: "b\nc" }],
];
for (const [what, verdict] of wrongVerdicts) {
  test(
    `authorize: ${what} is no verdict: 500, onError hears of it, nobody is registered and nothing published`,
    scene(async (stage) => {
      const body = witnessedBody();
      const asks: readonly ((broker: Broker) => Promise<Response>)[] = [
        ...readDoors.map(
          ([, door]) =>
            (broker: Broker) =>
              door(broker, clientRequest()),
        ),
        ...writeDoors.map(
          ([, door]) =>
            (broker: Broker) =>
              door(broker, eventRequest(null, "?channel=a", body.init)),
        ),
      ];
      for (const ask of asks) {
        const errors = new Witness<Reported>();
        const broker = stage.broker({ authorize: async () => verdict as AuthorizeResult, onError: errors.see });
        expect(await problem(await ask(broker))).toEqual([500, "internal"]);
        expect(await errors.next()).toMatchObject({ stage: "authorize" });
        expectUntouched(broker);
      }
      expect(body.pulls()).toBe(0);
    }),
  );
}

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
  reading(`authorize: what it ${how} is 500 and onError's, and no word of it is answered`, async ({ stage, door }) => {
    for (const error of thrown) {
      const errors = new Witness<Reported>();
      const broker = stage.broker({ authorize: fail(error), onError: errors.see });
      const answer = await door(broker, clientRequest());
      expect([answer.status, answer.headers.get("x-leak")]).toEqual([500, null]);
      const text = await answer.text();
      expect(JSON.parse(text)).toMatchObject({ code: "internal" });
      expect(text).not.toContain("secret");
      expect(await errors.next()).toEqual({ stage: "authorize", error });
      expectUntouched(broker);
    }
  });

  publishing(`authorize: what it ${how} is 500 and onError's, and no word of it is answered`, async (stage, door) => {
    for (const error of thrown) {
      const errors = new Witness<Reported>();
      const broker = stage.broker({ authorize: fail(error), onError: errors.see });
      const answer = await door(broker, eventRequest("x"));
      const text = await answer.text();
      expect(JSON.parse(text)).toMatchObject({ status: 500, code: "internal" });
      expect(text).not.toContain("secret");
      expect(await errors.next()).toEqual({ stage: "authorize", error });
      expectUntouched(broker);
    }
  });

  reading(`authorize: a BrokerError that it ${how} is answered with its code and headers`, async ({ stage, door }) => {
    const errors: Reported[] = [];
    const codes: readonly (readonly [ErrorCode, number])[] = [
      ["unauthorized", 401],
      ["forbidden", 403],
      ["not-found", 404],
      ["bad-request", 400],
      ["at-capacity", 503],
    ];
    for (const [code, status] of codes) {
      const error = new BrokerError(code, "said to the client", {
        cause: new Error(SECRET),
        headers: { "x-mine": "yes" },
      });
      const broker = stage.broker({ authorize: fail(error), onError: (event) => errors.push(event) });
      const answer = await door(broker, clientRequest({ headers: ANY }));
      expect([answer.status, answer.headers.get("x-mine")]).toEqual([status, "yes"]);
      expect(await answer.json()).toEqual({
        title: code.replaceAll("-", " "),
        status,
        code,
        detail: "said to the client",
      });
      expectUntouched(broker);
    }
    expect(errors).toEqual([]);
  });

  reading(
    `authorize: an authorize-unavailable that it ${how} tells the client to come back, and onError`,
    async ({ stage, door }) => {
      const errors = new Witness<Reported>();
      const error = new BrokerError("authorize-unavailable", "come back", { cause: new Error(SECRET) });
      const broker = stage.broker({ retry: 10_000, authorize: fail(error), onError: errors.see });
      const answer = await door(broker, clientRequest({ headers: ANY }));
      expect(answer.headers.get("retry-after")).toBe("10");
      expect(await problem(answer)).toEqual([503, "authorize-unavailable"]);
      expect(await errors.next()).toEqual({ stage: "authorize", error });
      const stream = new Connection(await door(broker, clientRequest()), new AbortController());
      expect([await stream.ended(), stream.retries.length]).toEqual(["closed", 1]);
      expectUntouched(broker);
    },
  );
}

test(
  "authorize: an option that is no function is a TypeError, and opens nothing",
  scene(async (stage) => {
    for (const authorize of [null, true, false, "bearer", {}, 0, ""])
      expect(() => stage.broker({ authorize: authorize as unknown as Authorize })).toThrow(TypeError);
  }),
);
