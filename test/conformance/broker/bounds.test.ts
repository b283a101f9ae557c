import { expect, inject, test, vi } from "vitest";
import type { Broker } from "../../../src/index.ts";
import { seqOf } from "../../support/clients/connection.ts";
import { clientRequest, codeOf, eventRequest, problemOf, type Scene, scene } from "../../support/test-broker.ts";

// Each bound of an input and of the log: just so much, and one too many, by default and as it is set.

const MIB = 1024 * 1024;

test(
  "maxBodyBytes: 64 KiB by default, and one byte more is 413",
  scene(async (stage) => {
    const broker = stage.broker();
    expect((await broker.eventHandler(eventRequest("x".repeat(65_536)))).status).toBe(200);
    const large = await broker.eventHandler(eventRequest("x".repeat(65_537)));
    expect([large.status, await problemOf(large)]).toEqual([413, "body-too-large"]);
    // Bytes, not characters: this has 21,846 of them.
    const wide = await broker.eventHandler(eventRequest("€".repeat(21_846)));
    expect([wide.status, await problemOf(wide)]).toEqual([413, "body-too-large"]);
    expect(broker.stats()).toMatchObject({ published: 1, failures: { "body-too-large": 2 } });
  }),
);

test(
  "maxEventBytes: counts the encoded event, type, retry and every line included",
  scene(async (stage) => {
    const broker = stage.broker({ maxEventBytes: 100 });
    const encoded = (data: string, head = ""): number =>
      new TextEncoder().encode(`${head}${data.replace(/^/gm, "data: ")}\n\n`).length;
    // Thirteen lines, of which each begins with "data: ".
    const [lines, wide] = ["\n".repeat(12), "€".repeat(30)];
    for (const [data, envelope, head] of [
      ["x".repeat(92), {}, ""],
      [`${lines}${"x".repeat(8)}`, {}, ""],
      [`${wide}xx`, {}, ""],
      ["x".repeat(80), { event: "type" }, "event: type\n"],
      ["x".repeat(83), { retry: 7 }, "retry: 7\n"],
    ] as const) {
      expect(encoded(data, head)).toBe(100);
      expect([data, await codeOf(broker.broadcast({ data, ...envelope }))]).toEqual([data, "none"]);
    }
    for (const [data, envelope, head] of [
      ["x".repeat(93), {}, ""],
      [`${lines}${"x".repeat(9)}`, {}, ""],
      [`${wide}xxx`, {}, ""],
      ["x".repeat(81), { event: "type" }, "event: type\n"],
      ["x".repeat(84), { retry: 7 }, "retry: 7\n"],
    ] as const) {
      expect(encoded(data, head)).toBe(101);
      expect([data, await codeOf(broker.broadcast({ data, ...envelope }))]).toEqual([data, "event-too-large"]);
    }
    expect(broker.stats().published).toBe(5);
  }),
);

test(
  "maxEventBytes: 1 MiB by default, and one byte more is refused",
  scene(async (stage) => {
    const broker = stage.broker();
    const room = MIB - "data: \n\n".length;
    expect(await codeOf(broker.broadcast("x".repeat(room)))).toBe("none");
    expect(await codeOf(broker.broadcast("x".repeat(room + 1)))).toBe("event-too-large");
    expect(await codeOf(broker.broadcast(new Uint8Array(room + 1)))).toBe("event-too-large");
  }),
);

const many = (count: number): string[] => Array.from({ length: count }, (_, index) => `channel ${index}`);

for (const [options, most] of [
  [{}, 100],
  [{ maxChannelsPerClient: 3 }, 3],
] as const) {
  test(
    `maxChannelsPerClient: ${most} by query, by overrides and by grant, and one more is refused`,
    scene(async (stage) => {
      const broker = stage.broker(options);
      const grants = (channels: string[]) => ({ authorize: () => ({ channels }) });
      const taken = [
        await stage.join(broker, { channel: many(most) }),
        await stage.join(broker, { channel: [...many(most), ...many(most)] }),
        await stage.join(broker, { channel: many(most + 1), overrides: { channels: many(most) } }),
        await stage.join(broker, { overrides: grants(many(most)) }),
        // What may be read is no bound of what is read.
        await stage.join(broker, { channel: many(most), overrides: grants(many(most + 1)) }),
      ];
      expect(broker.clients().map(({ channels }) => channels.length)).toEqual(taken.map(() => most));
      for (const [wish, overrides] of [
        [{ channel: many(most + 1) }, {}],
        [{}, { channels: many(most + 1) }],
      ] as const) {
        const answer = await broker.clientHandler(clientRequest(wish), overrides);
        expect([answer.status, await problemOf(answer)]).toEqual([400, "bad-channel"]);
      }
      // That is not the client's fault.
      const answer = await broker.clientHandler(clientRequest(), grants(many(most + 1)));
      expect([answer.status, await problemOf(answer)]).toEqual([500, "internal"]);
      expect(broker.stats()).toMatchObject({ clients: taken.length, failures: { "bad-channel": 2, internal: 1 } });
    }),
  );
}

test(
  "maxChannelsPerClient: 0 lets clients read what is for everybody and for them",
  scene(async (stage) => {
    const broker = stage.broker({ maxChannelsPerClient: 0 });
    const client = await stage.join(broker, { id: "one" });
    await broker.broadcast("all");
    await broker.broadcastTo("one", "own");
    expect([(await client.nextData()).data, (await client.nextData()).data]).toEqual(["all", "own"]);
    expect((await broker.clientHandler(clientRequest({ channel: "a" }))).status).toBe(400);
  }),
);

for (const [options, most] of [
  [{}, 100],
  [{ maxChannelsPerEvent: 3 }, 3],
] as const) {
  test(
    `maxChannelsPerEvent: ${most} by call, by query and by overrides, and one more is refused`,
    scene(async (stage) => {
      const broker = stage.broker(options);
      const query = (count: number): string =>
        `?${many(count)
          .map((name) => `channel=${encodeURIComponent(name)}`)
          .join("&")}`;
      expect(await codeOf(broker.broadcast("x", { channels: many(most) }))).toBe("none");
      expect(await codeOf(broker.broadcast("x", { channels: [...many(most), ...many(most)] }))).toBe("none");
      expect((await broker.eventHandler(eventRequest("x", query(most)))).status).toBe(200);
      expect((await broker.eventHandler(eventRequest("x"), { channels: many(most) })).status).toBe(200);
      expect(await codeOf(broker.broadcast("x", { channels: many(most + 1) }))).toBe("bad-channel");
      for (const answer of [
        await broker.eventHandler(eventRequest("x", query(most + 1))),
        await broker.eventHandler(eventRequest("x"), { channels: many(most + 1) }),
      ])
        expect([answer.status, await problemOf(answer)]).toEqual([400, "bad-channel"]);
      expect(broker.stats().published).toBe(4);
    }),
  );
}

/** Names at the bound and one past it, in UTF-16 code units: one, two and three bytes of UTF-8 for each, and two for a pair. */
const sized = (most: number): [fits: string[], over: string[]] => [
  ["x".repeat(most), "é".repeat(most), "€".repeat(most), `${"😀".repeat(most / 2)}`],
  ["x".repeat(most + 1), "é".repeat(most + 1), "€".repeat(most + 1), `${"😀".repeat(most / 2)}x`],
];
for (const [options, most] of [
  [{}, 256],
  [{ maxNameLength: 4 }, 4],
  [{ maxNameLength: 1_024 }, 1_024],
] as const) {
  test(
    `maxNameLength: ${most} UTF-16 code units of a channel, a client id and a key, however many bytes that is`,
    scene(async (stage) => {
      const broker = stage.broker(options);
      const [fits, over] = sized(most);
      for (const name of fits) {
        const client = await stage.join(broker, { id: name, channel: name });
        expect(client.clientId).toBe(name);
        await broker.broadcast("channel", { channels: name, idempotencyKey: name });
        await broker.broadcastTo(name, "inbox");
        expect([(await client.nextData()).data, (await client.nextData()).data]).toEqual(["channel", "inbox"]);
        expect((await broker.eventHandler(eventRequest("http"), { idempotencyKey: name })).status).toBe(200);
      }
      for (const name of over) {
        expect(await codeOf(broker.broadcast("x", { channels: name }))).toBe("bad-channel");
        expect(await codeOf(broker.broadcast("x", { idempotencyKey: name }))).toBe("bad-key");
        expect(await codeOf(broker.broadcastTo(name, "x"))).toBe("bad-id");
        expect(await codeOf(broker.disconnect(name))).toBe("bad-id");
        expect(await codeOf((async () => broker.listen({ channels: name }))())).toBe("bad-channel");
        const answers = [
          await broker.clientHandler(clientRequest({ id: name })),
          await broker.clientHandler(clientRequest({ channel: name })),
          await broker.eventHandler(eventRequest("x", `?id=${encodeURIComponent(name)}`)),
          await broker.eventHandler(eventRequest("x", `?channel=${encodeURIComponent(name)}`)),
          await broker.eventHandler(eventRequest("x"), { idempotencyKey: name }),
        ];
        const codes = await Promise.all(answers.map(problemOf));
        expect(codes).toEqual(["bad-id", "bad-channel", "bad-id", "bad-channel", "bad-key"]);
        expect(answers.map(({ status }) => status)).toEqual([400, 400, 400, 400, 400]);
      }
      const headers = (key: string): RequestInit => ({ headers: { "idempotency-key": key } });
      expect((await broker.eventHandler(eventRequest("y", "", headers("k".repeat(most))))).status).toBe(200);
      const long = await broker.eventHandler(eventRequest("y", "", headers("k".repeat(most + 1))));
      expect([long.status, await problemOf(long)]).toEqual([400, "bad-key"]);
    }),
  );
}

/** What a broker with this log still has of `channel`, as the seqs that a new reader from the earliest gets. */
async function kept(stage: Scene, broker: Broker, channel?: string): Promise<number[]> {
  const reader = await stage.join(broker, {
    query: { from: "earliest" },
    ...(channel === undefined ? {} : { channel }),
  });
  const { id } = await broker.broadcast("end");
  const end = await reader.until((event) => event.id === id);
  return reader.events.slice(1, reader.events.indexOf(end)).map((event) => seqOf(event.id));
}

test(
  "retention.bytes: just so many bytes are kept, one less drops the oldest",
  scene(async (stage) => {
    const probe = stage.broker();
    const client = await stage.join(probe);
    await probe.broadcast("x".repeat(100));
    await client.nextData();
    // All of these events have one digit in their position, and so the same size.
    const bytes = client.chunks.at(-1)?.length ?? 0;
    for (const [room, seqs] of [
      [3 * bytes, [2, 3, 4]],
      [3 * bytes - 1, [3, 4]],
      [bytes - 1, []],
    ] as const) {
      const broker = stage.broker({ log: { retention: { bytes: room } } });
      for (let event = 0; event < 4; event++) await broker.broadcast("x".repeat(100), { channels: "a" });
      expect(await kept(stage, broker, "a")).toEqual(seqs);
    }
  }),
);

test(
  "retention.events: Infinity by default, and 1 keeps one of each channel",
  scene(async (stage) => {
    const [all, one] = [stage.broker(), stage.broker({ log: { retention: { events: 1 } } })];
    for (const broker of [all, one]) {
      for (let event = 0; event < 5_000; event++) await broker.broadcast("x", { channels: "a" });
    }
    expect((await kept(stage, all, "a")).length).toBe(5_000);
    expect(await kept(stage, one, "a")).toEqual([5_000]);
  }),
);

for (const [retention, age] of [
  [{}, 300_000],
  [{ age: 10_000 }, 10_000],
] as const) {
  test(
    `retention.age: ${age} ms are kept, one more is not`,
    scene(async (stage) => {
      const broker = stage.broker({ log: { retention } });
      const start = Date.now();
      const clock = vi.spyOn(Date, "now");
      try {
        clock.mockReturnValue(start);
        await broker.broadcast("x", { channels: "a" });
        clock.mockReturnValue(start + age);
        expect(await kept(stage, broker, "a")).toEqual([1]);
        clock.mockReturnValue(start + age + 1);
        expect(await kept(stage, broker, "a")).toEqual([2]);
      } finally {
        clock.mockRestore();
      }
    }),
  );
}

test(
  "logBytes: just so many bytes are held, one less drops the oldest, whatever the retention",
  scene(async (stage) => {
    const probe = stage.broker();
    await probe.broadcast("x".repeat(100));
    const cost = probe.stats().log.bytes;
    expect(cost).toBeGreaterThan(100);
    for (const [logBytes, events] of [
      [3 * cost, 3],
      [3 * cost - 1, 2],
      [cost, 1],
      [cost - 1, 0],
      [1, 0],
    ] as const) {
      const broker = stage.broker({ log: { logBytes } });
      for (let event = 0; event < 5; event++) await broker.broadcast("x".repeat(100));
      expect(broker.stats().log).toMatchObject({ events, bytes: events * cost });
    }
  }),
);

test(
  "logBytes: 32 MiB by default, 8 MiB in a Durable Object",
  scene(async (stage) => {
    const most = inject("part") === "durable" ? 8 : 32;
    const broker = stage.broker();
    const large = "x".repeat(MIB - 2_000);
    for (let event = 0; event < 40; event++) await broker.broadcast(large);
    const { bytes } = broker.stats().log;
    expect(bytes).toBeLessThanOrEqual(most * MIB);
    expect(bytes).toBeGreaterThan((most - 1) * MIB);
  }),
);

for (const [log, most] of [
  [{ logBytes: 64 * MIB }, 100_000],
  [{ maxChannels: 3 }, 3],
] as const) {
  test(
    `maxChannels: ${most} channels without a client are known, one more pushes out the one used longest ago`,
    { timeout: 60_000 },
    scene(async (stage) => {
      const broker = stage.broker({ log });
      for (let channel = 0; channel < most; channel++) await broker.broadcast("x", { channels: `c${channel}` });
      expect(broker.stats().log.channels).toBe(most);
      // Used again, it is not the one that goes.
      await broker.broadcast("again", { channels: "c0" });
      await broker.broadcast("x", { channels: "one more" });
      expect(broker.stats().log).toMatchObject({ channels: most, events: most + 1 });
      const heard = async (channel: string): Promise<string> => {
        const listener = broker.listen({ channels: channel, from: "earliest" });
        const next = listener.next();
        await listener.return?.();
        const { value } = await next;
        return value?.type === "event" ? value.data : "nothing";
      };
      expect([await heard("c0"), await heard("one more"), await heard("c1")]).toEqual(["x", "x", "nothing"]);
    }),
  );
}

test(
  "maxChannels: those that a client reads are not counted and not forgotten",
  scene(async (stage) => {
    const broker = stage.broker({ log: { maxChannels: 2 } });
    const client = await stage.join(broker, { id: "one", channel: ["a", "b", "c"] });
    for (const channel of ["a", "b", "c"]) await broker.broadcast(channel, { channels: channel });
    for (let channel = 0; channel < 10; channel++) await broker.broadcast("x", { channels: `other ${channel}` });
    await broker.broadcast("end");
    await client.untilData("end");
    expect(client.data).toEqual(["a", "b", "c", "end"]);
    // Three channels, the inbox and the common one of the client, and two others.
    expect(broker.stats().log.channels).toBe(7);
  }),
);
