// The client's parser: the standard's rules one by one, and random streams against eventsource-parser.
import { createParser as createReference } from "eventsource-parser";
import fc from "fast-check";
import { describe, expect, inject, test } from "vitest";
import type { Block } from "../../../src/client/events.ts";
import { createParser } from "../../../src/client/parser.ts";

const SEED = Number(inject("seed") || 20);
const RUNS = Number(inject("histories") || 1_000);

/** What a parser makes of a stream: its blocks, and its last reconnection time. */
interface Parsed {
  readonly blocks: Block[];
  readonly retry: number | undefined;
}

function parse(chunks: readonly string[]): Parsed {
  const blocks: Block[] = [];
  const parser = createParser((block) => blocks.push(block));
  for (const chunk of chunks) parser.feed(chunk);
  return { blocks, retry: parser.retry() };
}

/** The same of eventsource-parser. It reports an id before its event, and alone if the block has no data. */
function parseByReference(chunks: readonly string[]): Parsed {
  const blocks: Block[] = [];
  let retry: number | undefined;
  let alone: string | undefined;
  const flush = (): void => {
    if (alone !== undefined) blocks.push({ type: "", data: undefined, id: alone });
    alone = undefined;
  };
  const parser = createReference({
    onId: (id) => {
      flush();
      alone = id;
    },
    onEvent: ({ event = "message", id, data }) => {
      if (id === undefined) flush();
      alone = undefined;
      blocks.push({ type: event, data, id });
    },
    onRetry: (ms) => void (retry = ms),
  });
  for (const chunk of chunks) parser.feed(chunk);
  flush();
  return { blocks, retry };
}

/** A block without data is no event, so its type has no meaning. */
const comparable = ({ blocks, retry }: Parsed): Parsed => ({
  blocks: blocks.map((block) => (block.data === undefined ? { ...block, type: "" } : block)),
  retry,
});

describe("createParser", () => {
  test.each([
    ["an event", "data: a\n\n", [{ type: "message", data: "a", id: undefined }]],
    ["a type and an id", "event: b\nid: 1\ndata: a\n\n", [{ type: "b", data: "a", id: "1" }]],
    ["several lines", "data: a\ndata\ndata:  b\n\n", [{ type: "message", data: "a\n\n b", id: undefined }]],
    ["only an id", "id: 1\n\n", [{ type: "message", data: undefined, id: "1" }]],
    ["an id that is reset", "id\ndata\n\n", [{ type: "message", data: "", id: "" }]],
    ["an id with NUL", "id: 1\0\ndata: a\n\n", [{ type: "message", data: "a", id: undefined }]],
    ["an event that is not complete", "data: a\n", []],
    ["a comment and unknown fields", ": data: a\ndata : a\nDATA: a\nx\n\n", []],
    ["CR and CRLF", "data: a\r\rdata: b\r\n\r\n", ["a", "b"].map((data) => ({ type: "message", data, id: undefined }))],
  ])("%s", (_, text, blocks) => {
    expect(parse([text]).blocks).toEqual(blocks);
    expect(parse([...text]).blocks).toEqual(blocks);
  });

  test("retry: only digits count", () => {
    expect(parse(["retry: 12\n\n"]).retry).toBe(12);
    expect(parse(["retry: 12\nretry: 1e3\nretry:\nretry: -1\n\n"]).retry).toBe(12);
  });

  test("pending: counts what is not complete, over lines and chunks", () => {
    const parser = createParser(() => undefined);
    for (const chunk of ["data: 1234", "5678", "\ndata: 9"]) parser.feed(chunk);
    expect(parser.pending()).toBe(8 + "data: 9".length);
    parser.feed("\n\n");
    expect(parser.pending()).toBe(0);
  });

  test(`random streams: the same as eventsource-parser, cut anywhere (seed ${SEED})`, () => {
    const end = fc.constantFrom("\n", "\r", "\r\n");
    const field = fc.constantFrom(
      "data",
      "data",
      "data",
      "id",
      "event",
      "id",
      "retry",
      "",
      "dat",
      "datax",
      "ids",
      " data",
      "Data",
      "eventx",
    );
    const value = fc.oneof(
      fc.constantFrom("", " ", "1", "12", "\0", "a b", "  two", ":", "ü😀", "\u2028", "data: x"),
      fc.string({ maxLength: 6 }).map((text) => text.replaceAll(/[\r\n\ufeff]/g, "_")),
    );
    const line = fc
      .tuple(field, fc.constantFrom(":", ": ", "", " :", "::"), value, end)
      .map(([name, colon, text, ending]) => name + colon + text + ending);
    const blank = end;
    const stream = fc.array(fc.oneof({ weight: 2, arbitrary: line }, { weight: 1, arbitrary: blank }), {
      maxLength: 40,
      size: "max",
    });
    let events = 0;
    fc.assert(
      fc.property(stream, fc.array(fc.nat({ max: 300 }), { maxLength: 20 }), (lines, cuts) => {
        const text = `data: first\n\n${lines.join("")}`;
        const places = [0, ...cuts.map((cut) => Math.min(cut, text.length)).sort((a, b) => a - b), text.length];
        const chunks = places.slice(1).map((place, index) => text.slice(places[index], place));
        const expected = comparable(parseByReference(chunks));
        events += expected.blocks.length;
        expect(comparable(parse(chunks))).toEqual(expected);
        expect(comparable(parse([...text]))).toEqual(expected);
      }),
      { seed: SEED, numRuns: RUNS },
    );
    expect(events).toBeGreaterThan(RUNS * 2);
  });
});
