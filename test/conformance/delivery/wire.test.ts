import { createParser, type EventSourceMessage } from "eventsource-parser";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Connection } from "../../support/clients/connection.ts";
import { withBroker } from "../../support/test-broker.ts";

// An independent parser reads published events as the HTML standard, section 9.2, says.

/** Text made of characters that could break the framing, and of random ones. */
const text = (maxLength: number): fc.Arbitrary<string> => {
  const breaking = fc.constantFrom(
    ..."\r|\n|\r\n|\n\n|\0|\uFEFF|\uD800|\uDC00| |  |:|: |data:|data: x|id: 7|event: x|retry: 1|\u2028|\u0085|😀|é|x".split(
      "|",
    ),
  );
  const unit = fc.oneof(
    { weight: 3, arbitrary: breaking },
    { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 4 }) },
  );
  return fc.array(unit, { maxLength }).map((parts) => parts.join(""));
};
const eventType = text(5)
  .map((type) => type.replace(/[\r\n\0]/g, ""))
  .filter((type) => !type.startsWith("fanwire-"));

/** Returns a text as it comes out of UTF-8: lone surrogates become U+FFFD. */
const throughUtf8 = (value: string): string => value.replace(/\p{Surrogate}/gu, "\uFFFD");
/** Returns data as an EventSource shows it. */
const dataOf = (data: string): string => throughUtf8(data).replace(/\r\n|\r/g, "\n");

const envelope = fc.record({ data: text(12), event: eventType, retry: fc.nat() }, { requiredKeys: ["data"] });

/** Feeds bytes to a new parser, in pieces that end at `cuts`. */
function parsePieces(bytes: Uint8Array, cuts: readonly number[]): EventSourceMessage[] {
  const events: EventSourceMessage[] = [];
  const parser = createParser({ onEvent: (event) => events.push(event) });
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const ends = [...cuts.filter((cut) => cut < bytes.length), bytes.length].sort((a, b) => a - b);
  let start = 0;
  for (const end of ends) {
    parser.feed(decoder.decode(bytes.subarray(start, end), { stream: true }));
    start = end;
  }
  return events;
}

function bytesOf({ chunks }: Connection): Uint8Array {
  const bytes = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
  let offset = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offset);
    offset += chunk.length;
  }
  return bytes;
}

test(
  "broadcast(): data, type and retry arrive as the standard defines",
  { timeout: 240_000 },
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker);
    await fc.assert(
      fc.asyncProperty(fc.array(envelope, { minLength: 1, maxLength: 5 }), async (events) => {
        const retries = client.retries.length;
        const published: { id: string }[] = [];
        for (const event of events) published.push(await broker.broadcast(event));
        for (const [index, { data, event }] of events.entries()) {
          expect(await client.nextData()).toEqual({
            id: published[index]?.id,
            event: event ? throughUtf8(event) : undefined,
            data: dataOf(data),
          });
        }
        expect(client.retries.slice(retries)).toEqual(
          events.flatMap(({ retry }) => (retry === undefined ? [] : [retry])),
        );
      }),
      { seed: 20261122, numRuns: 300 },
    );
  }),
);

test(
  "wire: a stream that is cut at any single byte is parsed like a whole one",
  { timeout: 240_000 },
  withBroker(async (setup) => {
    await fc.assert(
      fc.asyncProperty(fc.array(envelope, { minLength: 1, maxLength: 3 }), async (events) => {
        const broker = setup.broker();
        const client = await setup.join(broker);
        for (const event of events) await broker.broadcast(event);
        for (const _ of events) await client.nextData();
        const bytes = bytesOf(client);
        expect(client.events.map(({ data }) => data).slice(1)).toEqual(events.map(({ data }) => dataOf(data)));
        for (let cut = 1; cut < bytes.length; cut++) {
          if (bytes.length < 2_000 || cut % 37 === 0) expect(parsePieces(bytes, [cut])).toEqual(client.events);
        }
        expect(parsePieces(bytes, Array.from(bytes.keys()))).toEqual(client.events);
        await client.leave();
        await broker.close();
      }),
      { seed: 20261123, numRuns: 40 },
    );
  }),
);

test(
  "wire: a stream that is cut in many places is parsed like a whole one",
  { timeout: 240_000 },
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker);
    await fc.assert(
      fc.asyncProperty(envelope, fc.array(fc.nat({ max: 5_000 }), { maxLength: 20 }), async (event, cuts) => {
        client.chunks.length = 0;
        await broker.broadcast(event);
        const read = await client.nextData();
        expect(parsePieces(bytesOf(client), cuts)).toEqual([read]);
      }),
      { seed: 20261124, numRuns: 200 },
    );
  }),
);

test(
  "broadcast(): an event as large as maxEventBytes allows arrives whole",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker);
    const line = "\uD83D\uDE00 data: \r\n";
    const data = line.repeat(50_000);
    await broker.broadcast(data);
    await broker.broadcast("after");
    expect((await client.nextData()).data).toBe(dataOf(data));
    expect((await client.nextData()).data).toBe("after");
  }),
);

test(
  "broadcast(): empty data is an event",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker);
    for (const event of ["", { data: "" }, { data: "", event: "news" }, new Uint8Array()]) {
      await broker.broadcast(event);
      expect((await client.nextData()).data).toBe("");
    }
  }),
);

test(
  "wire: the stream has LF only and no byte order mark, and each event ends with a blank line",
  withBroker(async (setup) => {
    const broker = setup.broker();
    const client = await setup.join(broker);
    const { id } = await broker.broadcast("\uFEFFa\r\nb\rc");
    await client.nextData();
    const raw = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytesOf(client));
    expect(raw).not.toContain("\r");
    expect(raw.startsWith("\uFEFF")).toBe(false);
    expect(raw.endsWith(`\n\ndata: \uFEFFa\ndata: b\ndata: c\nid: ${id}\n\n`)).toBe(true);
  }),
);
