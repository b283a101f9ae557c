// Results of `authorize` that are not valid, and functions that throw.
import { expect, test } from "vitest";
import { type Authorize, type AuthorizeResult, type Broker, BrokerError, type ErrorCode } from "../../../src/index.ts";
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
import { clientRequest, eventRequest, Recorder, withBroker } from "../../support/test-broker.ts";

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
