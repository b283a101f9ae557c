import { expect, test } from "vitest";
import type { EventInput } from "../../../src/index.ts";
import { codeOf, withBroker } from "../../support/test-broker.ts";

const refused: readonly (readonly [what: string, event: unknown, code: string])[] = [
  ["CR in the type", { data: "x", event: "a\rb" }, "bad-event-type"],
  ["LF in the type", { data: "x", event: "a\nb" }, "bad-event-type"],
  ["NUL in the type", { data: "x", event: "a\0b" }, "bad-event-type"],
  ["a reserved type", { data: "x", event: "fanwire-gap" }, "bad-event-type"],
  ["the bare reserved prefix", { data: "x", event: "fanwire-" }, "bad-event-type"],
  ["a type that calls the page's onerror", { data: "x", event: "error" }, "bad-event-type"],
  ["a type that calls the page's onopen", { data: "x", event: "open" }, "bad-event-type"],
  ["a type that is not a string", { data: "x", event: 7 }, "TypeError"],
  ["a negative retry", { data: "x", retry: -1 }, "TypeError"],
  ["a fraction as retry", { data: "x", retry: 1.5 }, "TypeError"],
  ["an infinite retry", { data: "x", retry: Number.POSITIVE_INFINITY }, "TypeError"],
  ["NaN as retry", { data: "x", retry: Number.NaN }, "TypeError"],
  ["text as retry", { data: "x", retry: "1" }, "TypeError"],
  ["null as retry", { data: "x", retry: null }, "TypeError"],
  ["an unknown key", { data: "x", evnet: "typo" }, "TypeError"],
  ["an id", { data: "x", id: "mine" }, "TypeError"],
  ["no data", { event: "x" }, "TypeError"],
  ["undefined data", { data: undefined }, "TypeError"],
  ["data that serializes to nothing", { data: () => undefined }, "TypeError"],
  ["a bare object", { a: 1 }, "TypeError"],
  ["an array", ["x"], "TypeError"],
  ["an empty array", [], "TypeError"],
  ["a date", new Date(0), "TypeError"],
  ["a number", 7, "TypeError"],
  ["null", null, "TypeError"],
  ["undefined", undefined, "TypeError"],
];

for (const [what, event, code] of refused) {
  test(
    `broadcast(): refuses ${what} with ${code}`,
    withBroker(async (setup) => {
      const broker = setup.broker();
      expect(await codeOf(broker.broadcast(event as EventInput))).toBe(code);
      expect(broker.stats().log.events).toBe(0);
    }),
  );
}

test(
  "maxEventBytes: an event of exactly this size is accepted, and one byte more is refused",
  withBroker(async (setup) => {
    // The encoded form without an id adds "data: " and two line ends.
    const frame = 8;
    for (const data of ["x".repeat(92), "é".repeat(46), `${"€".repeat(30)}xx`]) {
      const exact = setup.broker({ maxEventBytes: 92 + frame });
      const tight = setup.broker({ maxEventBytes: 92 + frame - 1 });
      expect(await codeOf(exact.broadcast(data))).toBe("none");
      expect(await codeOf(tight.broadcast(data))).toBe("event-too-large");
    }
  }),
);

test(
  "bytes: a Uint8Array, an ArrayBuffer and views with an offset are read as UTF-8",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker);
    const bytes = new TextEncoder().encode("<< héllo >>");
    const events: EventInput[] = [
      bytes,
      bytes.buffer as ArrayBuffer,
      bytes.subarray(3, 9),
      { data: bytes.subarray(3, 9) },
      { data: new DataView(bytes.buffer as ArrayBuffer, 3, 6) },
      { data: bytes.buffer },
    ];
    for (const event of events) await broker.broadcast(event);
    const read: string[] = [];
    for (const _ of events) read.push((await client.nextData()).data);
    expect(read).toEqual(["<< héllo >>", "<< héllo >>", "héllo", "héllo", "héllo", "<< héllo >>"]);
  }),
);

test(
  "bytes: a byte order mark stays, and bytes that are not UTF-8 are a TypeError in every form",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker);
    for (const bytes of [
      [0x61, 0xff, 0x62],
      [0x61, 0xc3],
      [0xed, 0xa0, 0x80],
      [0xc0, 0x80],
      [0x1f, 0x8b, 8],
    ]) {
      const invalid = new Uint8Array(bytes);
      for (const event of [invalid, invalid.buffer, { data: invalid }, { data: new DataView(invalid.buffer) }])
        expect(await codeOf(broker.broadcast(event as Uint8Array))).toBe("TypeError");
      expect(await codeOf(broker.broadcastTo(client.clientId ?? "", invalid))).toBe("TypeError");
    }
    // Only the part that the view shows counts.
    const view = new Uint8Array([0xff, 0xef, 0xbb, 0xbf, 0x61, 0xff]).subarray(1, 5);
    await broker.broadcast(view);
    expect((await client.nextData()).data).toBe("\uFEFFa");
    expect(broker.stats().published).toBe(1);
  }),
);

test(
  "bytes: a change of the array after the call has no effect",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker);
    const bytes = new TextEncoder().encode("before");
    const published = broker.broadcast(bytes);
    bytes.fill(0x78);
    await published;
    expect((await client.nextData()).data).toBe("before");
  }),
);

test(
  "serialize: JSON by default, or the given function, and neither for text and bytes",
  withBroker(async (setup) => {
    const plain = setup.broker();
    const custom = setup.broker({ serialize: (data) => `<${typeof data}>` });
    const [a, b] = [await setup.join(plain), await setup.join(custom)];
    for (const broker of [plain, custom]) {
      for (const data of [null, 7, false, [1], { a: "\n" }, "text", new TextEncoder().encode("bytes")]) {
        await broker.broadcast({ data });
      }
    }
    await a.untilData("bytes");
    await b.untilData("bytes");
    expect(a.data).toEqual(["null", "7", "false", "[1]", '{"a":"\\n"}', "text", "bytes"]);
    expect(b.data).toEqual(["<object>", "<number>", "<boolean>", "<object>", "<object>", "text", "bytes"]);
  }),
);

test(
  "serialize: a result that is not a string is a TypeError, and an exception rejects",
  withBroker(async (setup) => {
    const numbers = setup.broker({ serialize: (() => 7) as unknown as (data: unknown) => string });
    expect(await codeOf(numbers.broadcast({ data: {} }))).toBe("TypeError");
    const throwing = setup.broker({
      serialize() {
        throw new RangeError("no");
      },
    });
    expect(await codeOf(throwing.broadcast({ data: {} }))).toBe("RangeError");
    expect(await codeOf(setup.broker().broadcast({ data: 7n }))).toBe("TypeError");
  }),
);
