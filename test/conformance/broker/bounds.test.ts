// Limits of input and of the log: the largest value that fits, and one more, with the default and with other settings.
import { expect, inject, test, vi } from "vitest";
import type { Broker, ErrorStage } from "../../../src/index.ts";
import { seqOf } from "../../support/clients/connection.ts";
import {
  clientRequest,
  codeOf,
  eventRequest,
  problemOf,
  type TestSetup,
  withBroker,
} from "../../support/test-broker.ts";

const MIB = 1024 * 1024;

test(
  "maxBodyBytes: is 64 KiB by default, and one more byte is 413",
  withBroker(async (setup) => {
    const broker = setup.broker();
    expect((await broker.eventHandler(eventRequest("x".repeat(65_536)))).status).toBe(200);
    const large = await broker.eventHandler(eventRequest("x".repeat(65_537)));
    expect([large.status, await problemOf(large)]).toEqual([413, "body-too-large"]);
    // Bytes are counted, not characters: this body has 21,846 characters.
    const wide = await broker.eventHandler(eventRequest("€".repeat(21_846)));
    expect([wide.status, await problemOf(wide)]).toEqual([413, "body-too-large"]);
    expect(broker.stats()).toMatchObject({ published: 1, failures: { "body-too-large": 2 } });
  }),
);

test(
  "maxEventBytes: counts the encoded event, with type, retry and every line",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxEventBytes: 100 });
    const encoded = (data: string, head = ""): number =>
      new TextEncoder().encode(`${head}${data.replace(/^/gm, "data: ")}\n\n`).length;
    // Thirteen lines, each with "data: " in front.
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
  "maxEventBytes: is 1 MiB by default, and one more byte is refused",
  withBroker(async (setup) => {
    const broker = setup.broker();
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
    `maxChannelsPerClient: allows ${most} by query, by overrides and by grant, and one more is refused`,
    withBroker(async (setup) => {
      const broker = setup.broker(options);
      const grants = (channels: string[]) => ({ authorize: () => ({ channels }) });
      const taken = [
        await setup.join(broker, { channel: many(most) }),
        await setup.join(broker, { channel: [...many(most), ...many(most)] }),
        await setup.join(broker, { channel: many(most + 1), overrides: { channels: many(most) } }),
        await setup.join(broker, { overrides: grants(many(most)) }),
        // A grant may have more channels, if the client requests fewer.
        await setup.join(broker, { channel: many(most), overrides: grants(many(most + 1)) }),
      ];
      expect(broker.clients().map(({ channels }) => channels.length)).toEqual(taken.map(() => most));
      for (const [requested, overrides] of [
        [{ channel: many(most + 1) }, {}],
        [{}, { channels: many(most + 1) }],
      ] as const) {
        const answer = await broker.clientHandler(clientRequest(requested), overrides);
        expect([answer.status, await problemOf(answer)]).toEqual([400, "bad-channel"]);
      }
      // The grant has too many channels, which is not the client's fault.
      const answer = await broker.clientHandler(clientRequest(), grants(many(most + 1)));
      expect(await answer.text()).toContain('"reason":"bad-grant"');
      expect(broker.stats()).toMatchObject({
        clients: taken.length,
        failures: { "bad-channel": 2, "bad-grant": 1 },
      });
    }),
  );
}

test(
  "maxChannelsPerClient: with 0, clients still receive events for every client and for themselves",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxChannelsPerClient: 0 });
    const client = await setup.join(broker, { id: "one" });
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
    `maxChannelsPerEvent: allows ${most} by call, by query and by overrides, and one more is refused`,
    withBroker(async (setup) => {
      const broker = setup.broker(options);
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

/** Returns names of exactly `most` UTF-16 code units, and names of one more. A unit takes one to three bytes of UTF-8. */
const sized = (most: number): [fitting: string[], tooLong: string[]] => [
  ["x".repeat(most), "é".repeat(most), "€".repeat(most), `${"😀".repeat(most / 2)}`],
  ["x".repeat(most + 1), "é".repeat(most + 1), "€".repeat(most + 1), `${"😀".repeat(most / 2)}x`],
];
for (const [options, most] of [
  [{}, 256],
  [{ maxNameLength: 4 }, 4],
  [{ maxNameLength: 1_024 }, 1_024],
] as const) {
  test(
    `maxNameLength: allows ${most} UTF-16 code units in a channel, a client id and an idempotency key, of any size in bytes`,
    withBroker(async (setup) => {
      const broker = setup.broker(options);
      const [fitting, tooLong] = sized(most);
      for (const name of fitting) {
        expect(broker.checkChannel(name)).toBe(name);
        const client = await setup.join(broker, { id: name, channel: name });
        expect(client.clientId).toBe(name);
        await broker.broadcast("channel", { channels: name, idempotencyKey: name });
        await broker.broadcastTo(name, "inbox");
        expect([(await client.nextData()).data, (await client.nextData()).data]).toEqual(["channel", "inbox"]);
        expect((await broker.eventHandler(eventRequest("http"), { idempotencyKey: name })).status).toBe(200);
      }
      for (const name of tooLong) {
        expect(await codeOf(broker.broadcast("x", { channels: name }))).toBe("bad-channel");
        expect(await codeOf(broker.broadcast("x", { idempotencyKey: name }))).toBe("bad-key");
        expect(await codeOf(broker.broadcastTo(name, "x"))).toBe("bad-id");
        expect(await codeOf(broker.disconnect(name))).toBe("bad-id");
        expect(await codeOf((async () => broker.listen({ channels: name }))())).toBe("bad-channel");
        expect(await codeOf((async () => broker.checkChannel(name))())).toBe("bad-channel");
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

test(
  "maxNameLength: limits a subject too",
  withBroker(async (setup) => {
    const stages: ErrorStage[] = [];
    const broker = setup.broker({
      authorize: () => ({ subject: "x".repeat(257) }),
      onError: (event) => stages.push(event.stage),
    });
    const answer = await broker.fetch(clientRequest());
    expect([answer.status, await problemOf(answer), stages]).toEqual([500, "internal", ["authorize"]]);
  }),
);

/** Returns the positions of the events that are retained of `channel`, as a new client with `from=earliest` receives them. */
async function retained(setup: TestSetup, broker: Broker, channel?: string): Promise<number[]> {
  const reader = await setup.join(broker, {
    query: { from: "earliest" },
    ...(channel === undefined ? {} : { channel }),
  });
  const { id } = await broker.broadcast("end");
  const end = await reader.until((event) => event.id === id);
  return reader.events.slice(1, reader.events.indexOf(end)).map((event) => seqOf(event.id));
}

test(
  "retention.bytes: events of this size are retained, and with one byte less the oldest is dropped",
  withBroker(async (setup) => {
    const probe = setup.broker();
    const client = await setup.join(probe);
    await probe.broadcast("x".repeat(100));
    await client.nextData();
    // All events have the same size, because their positions have one digit.
    const bytes = client.chunks.at(-1)?.length ?? 0;
    for (const [bytesRetained, seqs] of [
      [3 * bytes, [2, 3, 4]],
      [3 * bytes - 1, [3, 4]],
      [bytes - 1, []],
    ] as const) {
      const broker = setup.broker({ log: { retention: { bytes: bytesRetained } } });
      for (let event = 0; event < 4; event++) await broker.broadcast("x".repeat(100), { channels: "a" });
      expect(await retained(setup, broker, "a")).toEqual(seqs);
    }
  }),
);

test(
  "retention.events: is Infinity by default, and 1 retains one event of each channel",
  withBroker(async (setup) => {
    const [all, one] = [setup.broker(), setup.broker({ log: { retention: { events: 1 } } })];
    for (const broker of [all, one]) {
      for (let event = 0; event < 5_000; event++) await broker.broadcast("x", { channels: "a" });
    }
    expect((await retained(setup, all, "a")).length).toBe(5_000);
    expect(await retained(setup, one, "a")).toEqual([5_000]);
  }),
);

for (const [retention, age] of [
  [{}, 300_000],
  [{ age: 10_000 }, 10_000],
] as const) {
  test(
    `retention.age: an event is retained for ${age} ms, and not one more`,
    withBroker(async (setup) => {
      const broker = setup.broker({ log: { retention } });
      const start = Date.now();
      const clock = vi.spyOn(Date, "now");
      try {
        clock.mockReturnValue(start);
        await broker.broadcast("x", { channels: "a" });
        clock.mockReturnValue(start + age);
        expect(await retained(setup, broker, "a")).toEqual([1]);
        clock.mockReturnValue(start + age + 1);
        expect(await retained(setup, broker, "a")).toEqual([2]);
      } finally {
        clock.mockRestore();
      }
    }),
  );
}

test(
  "logBytes: events of this size are retained, and with one byte less the oldest is evicted, for any retention",
  withBroker(async (setup) => {
    const probe = setup.broker();
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
      const broker = setup.broker({ log: { logBytes } });
      for (let event = 0; event < 5; event++) await broker.broadcast("x".repeat(100));
      expect(broker.stats().log).toMatchObject({ events, bytes: events * cost });
    }
  }),
);

test(
  "logBytes: is 32 MiB by default, and 8 MiB in a Durable Object",
  withBroker(async (setup) => {
    const most = inject("part") === "durable" ? 8 : 32;
    const broker = setup.broker();
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
    `maxChannels: ${most} channels without a subscriber are known, and one more replaces the least recently used`,
    { timeout: 240_000 },
    withBroker(async (setup) => {
      const broker = setup.broker({ log });
      for (let channel = 0; channel < most; channel++) await broker.broadcast("x", { channels: `c${channel}` });
      expect(broker.stats().log.channels).toBe(most);
      // c0 was used again, so it is not the one that is forgotten.
      await broker.broadcast("again", { channels: "c0" });
      await broker.broadcast("x", { channels: "one more" });
      expect(broker.stats().log).toMatchObject({ channels: most, events: most + 1 });
      const firstData = async (channels: string): Promise<string> =>
        (await broker.history({ channels })).events[0]?.data ?? "nothing";
      expect([await firstData("c0"), await firstData("one more"), await firstData("c1")]).toEqual([
        "x",
        "x",
        "nothing",
      ]);
    }),
  );
}

test(
  "maxChannels: channels that a client reads are not counted and not forgotten",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { maxChannels: 2 } });
    const client = await setup.join(broker, { id: "one", channel: ["a", "b", "c"] });
    for (const channel of ["a", "b", "c"]) await broker.broadcast(channel, { channels: channel });
    for (let channel = 0; channel < 10; channel++) await broker.broadcast("x", { channels: `other ${channel}` });
    await broker.broadcast("end");
    await client.untilData("end");
    expect(client.data).toEqual(["a", "b", "c", "end"]);
    // Three channels, the inbox and the common channel of the client, and two others.
    expect(broker.stats().log.channels).toBe(7);
  }),
);
