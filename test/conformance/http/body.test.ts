// The body of a request: what it may be encoded as, and who may have read it before.
import { expect, test } from "vitest";
import type { EventOverrides } from "../../../src/index.ts";
import { createSlowBody, testPublishing } from "../../support/http/entry-points.ts";
import { runtime } from "../../support/runtime.ts";
import { eventRequest, problemOf, Recorder, turn, withBroker } from "../../support/test-broker.ts";

const post = (body: BodyInit | null, headers: Record<string, string> = {}): Request =>
  eventRequest(body, "", { headers: { authorization: "Bearer secret", ...headers } });
const bytes = (...values: number[]): Uint8Array<ArrayBuffer> => new Uint8Array(values);

for (const headers of [
  { "content-encoding": "gzip" },
  { "content-encoding": "br" },
  { "content-encoding": "identity, gzip" },
  { "content-encoding": "" },
  { "content-type": "text/plain; charset=iso-8859-1" },
  { "content-type": 'text/plain;CHARSET="utf-16"' },
  { "content-type": "text/plain; a=b;charset = windows-1252" },
  { "content-type": "text/plain; charset=utf-8; charset=latin1" },
  { "content-type": "text/plain; charset=" },
  { "content-type": "text/plain; charset=utf-8, text/plain; charset=utf-7" },
]) {
  testPublishing(
    `${JSON.stringify(headers)}: is 415 unsupported-media-type, and nothing is published`,
    async (setup, entryPoint) => {
      const broker = setup.broker({ publishToken: "secret" });
      const answer = await entryPoint(broker, post("plain", headers));
      expect([answer.status, await problemOf(answer)]).toEqual([415, "unsupported-media-type"]);
      expect(answer.headers.get("accept-encoding")).toBe("identity");
      expect(broker.stats().published).toBe(0);
    },
  );
}

for (const headers of [
  { "content-encoding": "identity" },
  { "content-encoding": " Identity " },
  { "content-type": "text/plain" },
  { "content-type": "text/plain; charset=utf-8" },
  { "content-type": 'application/json;charset="UTF-8"' },
  { "content-type": "text/plain; charset=utf8; format=flowed" },
  { "content-type": "text/plain; charset=us-ascii" },
  { "content-type": "application/x-www-form-urlencoded" },
  { "content-type": "nonsense" },
]) {
  testPublishing(`${JSON.stringify(headers)}: is published as it is`, async (setup, entryPoint) => {
    const broker = setup.broker({ publishToken: "secret" });
    const client = await setup.join(broker);
    expect((await entryPoint(broker, post("pläin €", headers))).status).toBe(200);
    expect((await client.nextData()).data).toBe("pläin €");
  });
}

for (const [what, body] of [
  ["a gzip header", bytes(0x1f, 0x8b, 8, 0)],
  ["Latin-1", bytes(0x63, 0x61, 0x66, 0xe9)],
  ["UTF-16 with a byte order mark", bytes(0xff, 0xfe, 0x61, 0)],
  ["a lone continuation byte", bytes(0x61, 0x80)],
  ["a character that is cut off", bytes(0x61, 0xe2, 0x82)],
  ["an overlong form", bytes(0xc0, 0xaf)],
  ["a surrogate", bytes(0xed, 0xa0, 0x80)],
] as const) {
  testPublishing(
    `bytes that are not UTF-8 are 400 bad-request, whole and in parts: ${what}`,
    async (setup, entryPoint) => {
      const broker = setup.broker({ publishToken: "secret" });
      const parts = [...body].map((byte) => bytes(byte));
      const stream = new ReadableStream({
        pull: (controller) => {
          const part = parts.shift();
          if (part) controller.enqueue(part);
          else controller.close();
        },
      });
      const init = { headers: { authorization: "Bearer secret" }, duplex: "half" } as RequestInit;
      for (const request of [post(body), eventRequest(stream, "", init)]) {
        const answer = await entryPoint(broker, request);
        expect([answer.status, await problemOf(answer)]).toEqual([400, "bad-request"]);
      }
      expect(broker.stats().published).toBe(0);
    },
  );
}

testPublishing("a replacement character in the body is a character like any other", async (setup, entryPoint) => {
  const broker = setup.broker({ publishToken: "secret" });
  const client = await setup.join(broker);
  expect((await entryPoint(broker, post("a\uFFFDb"))).status).toBe(200);
  expect((await client.nextData()).data).toBe("a\uFFFDb");
});

testPublishing(
  "a body that was read before is 500 body-already-read, and onError receives it",
  async (setup, entryPoint) => {
    const errors = new Recorder<{ readonly error: unknown; readonly stage: string }>();
    const broker = setup.broker({ publishToken: "secret", onError: errors.record });
    const read = post('{"a":1}');
    await read.json();
    const locked = post("locked");
    locked.body?.getReader();
    // What an adapter for Node passes on when a parser has read the socket: the length, and no bytes.
    const emptied = post(null, { "content-length": "7" });
    for (const request of [read, locked, emptied]) {
      const answer = await entryPoint(broker, request);
      const { code, detail } = (await answer.json()) as { code: string; detail: string };
      expect([answer.status, code]).toEqual([500, "body-already-read"]);
      expect(detail).toContain("eventHandler(request, { data })");
      expect(await errors.next()).toMatchObject({ stage: "request", error: { code: "body-already-read" } });
    }
    expect(broker.stats().published).toBe(0);
  },
);

test(
  "eventHandler(request, { data }): publishes a parsed body, and does not read the request's",
  withBroker(async (setup) => {
    const broker = setup.broker({ serialize: (data) => `<${JSON.stringify(data)}>` });
    const client = await setup.join(broker);
    const read = post("other");
    await read.text();
    const send = async (overrides: EventOverrides, query = ""): Promise<number> =>
      (await broker.eventHandler(query ? eventRequest("other", query) : read, overrides)).status;
    expect(await send({ data: { a: 1 } })).toBe(200);
    expect(await send({ data: "text" })).toBe(200);
    expect(await send({ data: bytes(0x62) })).toBe(200);
    expect(await send({ data: 0 })).toBe(200);
    expect(await send({ data: null, type: "t" })).toBe(200);
    expect(await send({ data: [] }, "?type=u")).toBe(200);
    const received = [];
    for (let count = 0; count < 6; count++) {
      const { event, data } = await client.nextData();
      received.push([event, data]);
    }
    expect(received).toEqual([
      [undefined, '<{"a":1}>'],
      [undefined, "text"],
      [undefined, "b"],
      [undefined, "<0>"],
      ["t", "<null>"],
      ["u", "<[]>"],
    ]);
    for (const data of ["", bytes()]) expect(await send({ data })).toBe(400);
    expect(await send({ data: undefined })).toBe(500);
    expect((await broker.eventHandler(post("body"), { data: undefined })).status).toBe(200);
    expect((await client.nextData()).data).toBe("body");
  }),
);

testPublishing(
  "bodyTimeout: a body that is not complete by then is 408 body-timeout, its rest is dropped, and nothing is published",
  async (setup, entryPoint) => {
    const broker = setup.broker({ authorize: () => true, bodyTimeout: 20 });
    const body = createSlowBody("the beginning");
    const answer = await entryPoint(broker, eventRequest(null, "", body.init));
    expect([answer.status, await problemOf(answer)]).toEqual([408, "body-timeout"]);
    expect(answer.headers.get("connection")).toBe("close");
    // What may not be cancelled is read to its end.
    if (runtime === "deno" || runtime === "workerd") expect(body.cancelled()).toBe(true);
    else {
      body.send("the rest");
      body.end();
    }
    await turn();
    expect(broker.stats()).toMatchObject({ published: 0, failures: { "body-timeout": 1 } });
    expect((await entryPoint(broker, eventRequest("next"))).status).toBe(200);
  },
);

testPublishing("bodyTimeout: Infinity waits, and a body within the time is published", async (setup, entryPoint) => {
  for (const bodyTimeout of [Infinity, 10_000]) {
    const broker = setup.broker({ authorize: () => true, bodyTimeout });
    const client = await setup.join(broker);
    const body = createSlowBody("first, ");
    const answering = entryPoint(broker, eventRequest(null, "", body.init));
    await new Promise((resolve) => setTimeout(resolve, 30));
    body.send("second");
    body.end();
    expect((await answering).status).toBe(200);
    expect((await client.nextData()).data).toBe("first, second");
  }
});

test(
  "bodyTimeout: a body that was read leaves no timer behind",
  withBroker(async (setup) => {
    const broker = setup.broker({ authorize: () => true, bodyTimeout: 12_345 });
    const { setTimeout: realTimeout, clearTimeout: realClear } = globalThis;
    const timers = new Set<unknown>();
    Object.assign(globalThis, {
      setTimeout: (task: () => void, ms?: number) => {
        const timer: unknown = realTimeout(task, ms);
        if (ms === 12_345) timers.add(timer);
        return timer;
      },
      clearTimeout: (timer: unknown) => {
        timers.delete(timer);
        realClear(timer as number);
      },
    });
    try {
      expect((await broker.fetch(eventRequest("x"))).status).toBe(200);
      expect((await broker.fetch(eventRequest("x".repeat(70_000)))).status).toBe(413);
      expect(timers.size).toBe(0);
    } finally {
      Object.assign(globalThis, { setTimeout: realTimeout, clearTimeout: realClear });
    }
  }),
);
