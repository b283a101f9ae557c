// `POST /broadcast` with one event a line: what a line may say, and who may publish it.
import { afterEach, describe, expect, test, vi } from "vitest";
import { rateLimits } from "../../../src/http/rate-limits.ts";
import type { AccessRequest, AuthorizeResult } from "../../../src/index.ts";
import { batch, history, idsOf, NDJSON, SECRET, TOKEN } from "../../support/http/batches.ts";
import { createCountedBody, createSlowBody, statusAndCode, testPublishing } from "../../support/http/entry-points.ts";
import { as, byAddress, bySubject, from, stopClock } from "../../support/http/rates.ts";
import { eventRequest, withBroker } from "../../support/test-broker.ts";

afterEach(() => {
  vi.restoreAllMocks();
});

describe("lines", () => {
  testPublishing("a batch is published in order, and answered with all ids", async (setup, publish) => {
    const broker = setup.broker(SECRET);
    const ann = await setup.join(broker, { id: "ann", channel: ["a", "b"] });
    const text = [
      '{ "data": "text" }',
      "",
      '{"data":{"n":1},"event":"price","channels":"a"}\r',
      '  {"data":null,"channels":["a","b"]}',
      '{"data":"to ann","clientId":"ann","event":""}',
      '{"data":0}',
    ].join("\n");
    for (const body of [text, `${text}\n`, `\uFEFF${text}\n\n`]) {
      const ids = await idsOf(await publish(broker, batch(body, TOKEN)));
      const events = [];
      for (let n = 0; n < 5; n++) events.push(await ann.nextData());
      expect(events.map(({ id }) => id)).toEqual(ids);
      expect(events.map(({ event, data }) => [event ?? "message", data])).toEqual([
        ["message", "text"],
        ["price", '{"n":1}'],
        ["message", "null"],
        ["message", "to ann"],
        ["message", "0"],
      ]);
    }
    expect(broker.stats().published).toBe(15);
  });

  const wrong: readonly (readonly [line: string, code: string])[] = [
    ["{", "bad-request"],
    ["[]", "bad-request"],
    ['"text"', "bad-request"],
    ["null", "bad-request"],
    ["{}", "no-event-data"],
    ['{"data":""}', "no-event-data"],
    ['{"data":"x","channel":"a"}', "bad-request"],
    ['{"data":"x","type":"a"}', "bad-request"],
    ['{"data":"x","ephemeral":true}', "bad-request"],
    ['{"data":"x","__proto__":{}}', "bad-request"],
    ['{"data":"x","event":1}', "bad-request"],
    ['{"data":"x","event":"a\\nb"}', "bad-event-type"],
    ['{"data":"x","event":"open"}', "bad-event-type"],
    ['{"data":"x","channels":[]}', "bad-channel"],
    ['{"data":"x","channels":null}', "bad-request"],
    ['{"data":"x","channels":{"0":"a"}}', "bad-request"],
    ['{"data":"x","channels":["a",1]}', "bad-request"],
    ['{"data":"x","channels":"fanwire-a"}', "bad-channel"],
    ['{"data":"x","channels":"a","clientId":"one"}', "bad-request"],
    ['{"data":"x","clientId":""}', "bad-id"],
    ['{"data":"x","clientId":null}', "bad-request"],
    ['{"data":"x","idempotencyKey":""}', "bad-key"],
    ['{"data":"x","idempotencyKey":"a\\tb"}', "bad-key"],
    ['{"data":"x","idempotencyKey":"first"}', "bad-key"],
    [`{"data":"${"x".repeat(2_000)}"}`, "event-too-large"],
  ];
  testPublishing("a line that is wrong is named, and nothing is published", async (setup, publish) => {
    const broker = setup.broker({ ...SECRET, maxEventBytes: 1_000 });
    for (const [line, code] of wrong) {
      const answer = await publish(broker, batch(`{"data":"1","idempotencyKey":"first"}\n\n${line}\n`, TOKEN));
      const problem = (await answer.json()) as { code: string; detail: string; ids?: unknown };
      expect([line, problem.code]).toEqual([line, code]);
      expect(problem.detail).toContain("line 3");
      expect(problem.ids).toBeUndefined();
      expect(broker.stats().published).toBe(0);
    }
  });

  testPublishing("bounds: lines, bytes, and no lines at all", async (setup, publish) => {
    const broker = setup.broker({ ...SECRET, maxBodyBytes: 20_000 });
    const send = async (body: BodyInit) => statusAndCode(await publish(broker, batch(body, TOKEN)));
    expect((await idsOf(await publish(broker, batch('{"data":0}\n'.repeat(1_000), TOKEN)))).length).toBe(1_000);
    expect(await send('{"data":0}\n'.repeat(1_001))).toEqual([413, "body-too-large"]);
    expect(await send(`{"data":"${"x".repeat(20_000)}"}`)).toEqual([413, "body-too-large"]);
    for (const body of ["", "\n\r\n \n"]) expect(await send(body)).toEqual([400, "no-event-data"]);
    expect(broker.stats().published).toBe(1_000);
  });

  testPublishing("the query names nothing that is for the lines", async (setup, publish) => {
    const broker = setup.broker(SECRET);
    for (const query of ["?channel=a", "?id=a", "?type=a", "?ephemeral=true", "?ephemeral=false"])
      expect(await statusAndCode(await publish(broker, batch([{ data: 1 }], TOKEN, query)))).toEqual([
        400,
        "bad-request",
      ]);
    expect(broker.stats().published).toBe(0);
  });

  testPublishing("another media type is one event, as before", async (setup, publish) => {
    const broker = setup.broker(SECRET);
    for (const type of ["application/json", "application/x-ndjson2", "text/plain"]) {
      const request = eventRequest('{"data":1}\n{"data":2}', "?channel=a", {
        headers: { ...TOKEN, "content-type": type },
      });
      expect((await publish(broker, request)).status).toBe(200);
    }
    expect(
      await idsOf(
        await publish(
          broker,
          batch([{ data: 1 }], { ...TOKEN, "content-type": "Application/X-NDJSON; charset=utf-8" }),
        ),
      ),
    ).toHaveLength(1);
    expect(broker.stats().published).toBe(4);
  });

  test(
    "overrides decide for all lines: one that names something else is refused",
    withBroker(async (setup) => {
      const broker = setup.broker();
      const send = (lines: readonly unknown[], overrides: object) => broker.eventHandler(batch(lines), overrides);
      await idsOf(await send([{ data: 1 }, { data: 2, event: "t" }], { channels: "room" }));
      await idsOf(await send([{ data: 3 }], { channels: ["room"], type: "t" }));
      expect(await history(broker, "room")).toEqual(["1", "2", "3"]);
      for (const [line, overrides] of [
        [{ channels: "other" }, { channels: "room" }],
        [{ channels: "room" }, { channels: "room" }],
        [{ clientId: "ann" }, { channels: "room" }],
        [{ channels: "other" }, { clientId: "ann" }],
        [{ event: "a" }, { type: "b" }],
        [{}, { ephemeral: true }],
      ])
        expect(await statusAndCode(await send([{ data: 1, ...line }], overrides as object))).toEqual([
          400,
          "bad-request",
        ]);
      // Data that a middleware has parsed is one event.
      expect((await broker.eventHandler(batch("not read"), { data: [1, 2], channels: "room" })).status).toBe(200);
      expect(broker.stats().published).toBe(4);
    }),
  );
});

describe("who may publish", () => {
  const LINES = {
    a: { channels: "a" },
    ab: { channels: ["a", "b"] },
    c: { channels: "c" },
    one: { clientId: "one" },
    two: { clientId: "two" },
    all: {},
  };
  const grants: readonly (readonly [
    result: AuthorizeResult,
    lines: readonly (keyof typeof LINES)[],
    status: number,
  ])[] = [
    [{ channels: ["a", "b"] }, ["a", "ab"], 200],
    [{ channels: ["a", "b"] }, ["a", "c"], 403],
    [{ channels: ["a", "b"] }, ["a", "all"], 403],
    [{ channels: ["a", "b"] }, ["a", "one"], 403],
    [{ channels: ["one"] }, ["one"], 403],
    [{ clientId: "one" }, ["one", "one"], 200],
    [{ clientId: "one" }, ["one", "two"], 403],
    [{ clientId: "one", channels: ["c"] }, ["one", "c"], 200],
    [{ everybody: true }, ["all"], 200],
    [{ everybody: true }, ["all", "a"], 403],
    [{ everybody: true, channels: ["a", "b", "c"], clientId: "one" }, ["all", "ab", "c", "one"], 200],
    [{}, ["all"], 403],
    [true, ["all", "ab", "c", "one", "two"], 200],
    [false, ["all"], 403],
    [{ channels: ["a"], expiresAt: 1 }, ["a"], 401],
  ];
  testPublishing("Grant: every line has to be allowed, or none is published", async (setup, publish) => {
    for (const [result, names, status] of grants) {
      const broker = setup.broker({ authorize: ({ action }) => action === "connect" || result });
      for (const id of ["one", "two"]) await setup.join(broker, { id });
      const answer = await publish(broker, batch(names.map((name) => ({ data: name, ...LINES[name] }))));
      expect([result, names, answer.status]).toEqual([result, names, status]);
      expect(broker.stats().published).toBe(status === 200 ? names.length : 0);
    }
  });

  testPublishing(
    "authorize is asked before the body is read, and again for what its answer does not list",
    async (setup, publish) => {
      const asked: unknown[] = [];
      let answer = ({ batch: isBatch }: AccessRequest): AuthorizeResult =>
        isBatch === true && { channels: ["a"], subject: "s" };
      const broker = setup.broker({
        authorize: (access) => {
          const { action, channels, clientId, batch: isBatch } = access;
          if (action === "connect") return true;
          asked.push([channels, clientId, isBatch ?? false]);
          return answer(access);
        },
      });
      await setup.join(broker, { id: "one" });
      const lines = [
        { data: 1, channels: "a" },
        { data: 2, channels: ["a", "b"] },
        { data: 3, channels: "c" },
        { data: 4, clientId: "one" },
        { data: 5, clientId: "one" },
        { data: 6 },
      ];
      const send = () => publish(broker, batch(lines));
      expect((await send()).status).toBe(403);
      expect(asked.splice(0)).toEqual([
        [[], undefined, true],
        [[], undefined, false],
      ]);
      expect(broker.stats().published).toBe(0);
      // What single events are allowed, is allowed to a batch.
      answer = ({ channels }) => !channels.includes("x");
      await idsOf(await send());
      expect(asked.splice(0)).toEqual([
        [[], undefined, true],
        [[], undefined, false],
        [["a", "b", "c"], undefined, false],
        [[], "one", false],
      ]);
      // A response of its own.
      answer = ({ batch: isBatch }) => isBatch || new Response("no", { status: 418 });
      expect((await send()).status).toBe(418);
      answer = ({ batch: isBatch }) =>
        isBatch || { everybody: true, channels: ["a", "b", "c"], clientId: "one", expiresAt: Date.now() - 1 };
      expect(await statusAndCode(await send())).toEqual([401, "unauthorized"]);
      answer = () => false;
      const counted = createCountedBody();
      const refused = await publish(broker, eventRequest(null, "", { ...counted.init, headers: NDJSON }));
      expect([refused.status, counted.pulls()]).toEqual([403, 0]);
      expect(broker.stats().published).toBe(6);
    },
  );

  test(
    "publishToken allows all; without it and authorize, publishing is closed; a forged request is refused",
    withBroker(async (setup) => {
      const broker = setup.broker(SECRET);
      await idsOf(await broker.fetch(batch([{ data: 1 }, { data: 2, channels: "a" }], TOKEN)));
      expect(await statusAndCode(await broker.fetch(batch([{ data: 1 }])))).toEqual([401, "unauthorized"]);
      expect(await statusAndCode(await setup.broker().fetch(batch([{ data: 1 }])))).toEqual([403, "publishing-closed"]);
      const open = setup.broker({ authorize: () => true });
      const forged = { cookie: "session=1", "sec-fetch-site": "cross-site" };
      expect(await statusAndCode(await open.fetch(batch([{ data: 1 }], forged)))).toEqual([403, "cross-origin"]);
    }),
  );

  test(
    "a grant that expires while the body is sent publishes nothing",
    withBroker(async (setup) => {
      const broker = setup.broker({ authorize: () => ({ channels: ["a"], expiresAt: Date.now() + 30 }) });
      const body = createSlowBody('{"data":1,"channels":"a"}\n');
      const answer = broker.fetch(eventRequest(null, "", { ...body.init, headers: NDJSON }));
      await new Promise((resolve) => setTimeout(resolve, 60));
      body.end();
      expect(await statusAndCode(await answer)).toEqual([401, "unauthorized"]);
      expect(broker.stats().published).toBe(0);
    }),
  );
});

describe("rate.publishes", () => {
  testPublishing("counts the events of a batch, of a subject and of a key", async (setup, publish) => {
    for (const [by, headers] of [
      [undefined, as("ann")],
      [byAddress, from("10.0.0.1")],
    ] as const) {
      const pass = stopClock();
      const broker = setup.broker({
        authorize: bySubject,
        rate: rateLimits({ publishes: { perSecond: 1, burst: 5 }, ...(by ? { by } : {}) }),
      });
      const send = async (count: number) =>
        (await publish(broker, batch(Array(count).fill({ data: 1 }), headers))).status;
      expect(await send(4)).toBe(200);
      // There is room for one; the request itself has been counted, and nothing is published.
      expect(await send(2)).toBe(429);
      expect(broker.stats().published).toBe(4);
      pass(5_000);
      expect(await send(5)).toBe(200);
      expect(await send(1)).toBe(429);
      // More than the burst needs a full bucket, and is paid for in full.
      pass(5_000);
      expect(await send(8)).toBe(200);
      pass(3_000);
      expect(await send(1)).toBe(429);
      pass(1_000);
      expect(await send(1)).toBe(200);
      expect(broker.stats().published).toBe(18);
      vi.restoreAllMocks();
    }
  });
});
