import fc from "fast-check";
import { expect } from "vitest";
import { seqOf } from "../clients/connection.ts";
import type { SocketClient } from "../clients/socket-client.ts";
import { within } from "../http/hostile-requests.ts";
import type { Stage } from "../servers/server.ts";

// Events made at random as they are sent over HTTP, and what their readers have to see by the HTML standard, section 9.2.

const CHANNELS = ["a", "b&=+#%", "%61", "\u{1f600}/?", "@both"];

/** An event to be posted. */
export interface Posted {
  readonly query: string;
  readonly body: Buffer;
  /** For whom: the names of channels, an id, or nobody in particular. */
  readonly channels: readonly string[];
  readonly id: string | undefined;
  /** As a reader sees it. */
  readonly type: string | undefined;
  readonly data: string;
  /** The code of its refusal, if that is what it deserves. */
  readonly refusal: string | undefined;
}

/** One that was taken. */
export interface Accepted {
  readonly index: number;
  readonly event: Posted;
  /** Its position. */
  readonly id: string;
  /** How many it was said to be for. */
  readonly clients: number;
}

const NASTY = [
  "\r",
  "\n",
  "\r\n",
  "\n\n",
  "\0",
  "\ufeff",
  "\u2028",
  "\u0085",
  " ",
  ":",
  "data: x",
  "id: 7",
  "event: x",
  "retry: 1",
  "é",
  "😀",
];
const piece = fc.oneof(
  fc.constantFrom(...NASTY).map((text) => Buffer.from(text)),
  fc
    .constantFrom("\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90", "\xe2\x82", "\x80")
    .map((bytes) => Buffer.from(bytes, "latin1")),
  fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
);
const bytes = (maxLength: number): fc.Arbitrary<Buffer> =>
  fc.array(piece, { maxLength, size: "max" }).map((pieces) => Buffer.concat(pieces));

const LIMIT = 65_536;
/** Most are short, some are as long as they may be. */
const body = fc
  .tuple(bytes(12), fc.oneof({ weight: 3, arbitrary: fc.constant(1) }, fc.integer({ min: 1, max: 400 })))
  .map(([pattern, times]) => Buffer.concat(Array.from({ length: times }, () => pattern)).subarray(0, LIMIT));

const decode = (text: Buffer): string => new TextDecoder("utf-8", { ignoreBOM: true }).decode(text);
const percent = (text: Buffer): string => Array.from(text, (byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
const percentText = (text: string): string => percent(Buffer.from(text));

const posted: fc.Arbitrary<Posted> = fc
  .record({
    type: fc.oneof(
      { weight: 2, arbitrary: fc.constant(Buffer.of()) },
      bytes(3),
      fc.constant(Buffer.from("fanwire-gap")),
    ),
    target: fc.oneof(fc.subarray(CHANNELS), fc.constant("one")),
    body,
  })
  .map(({ type, target, body }) => {
    const channels = typeof target === "string" ? [] : target;
    const id = typeof target === "string" ? target : undefined;
    const parameters = channels.map((name) => `channel=${percentText(name)}`);
    if (id !== undefined) parameters.push(`id=${id}`);
    if (type.length > 0) parameters.push(`type=${percent(type)}`);
    const name = decode(type);
    const data = decode(body).replace(/^\ufeff+/, "");
    const isBadType = /[\r\n\0]/.test(name) || name.startsWith("fanwire-");
    return {
      query: parameters.join("&"),
      body,
      channels,
      id,
      type: name === "" ? undefined : name,
      data: data.replace(/\r\n|\r/g, "\n"),
      refusal: isBadType ? "bad-event-type" : data === "" ? "no-event-data" : undefined,
    };
  });

/** So many bytes of events, the same ones for the same seed. */
export function eventsIn(seed: number, size: number): readonly Posted[] {
  const events: Posted[] = [];
  let length = 0;
  for (let part = 0; length < size; part++) {
    for (const event of fc.sample(posted, { seed: seed + part, numRuns: 100 })) {
      events.push(event);
      length += event.body.length;
      if (length >= size) break;
    }
  }
  return events;
}

/** One who reads some channels. */
class Reader {
  readonly #client: SocketClient;
  readonly #isMine: (event: Posted) => boolean;

  constructor(client: SocketClient, isMine: (event: Posted) => boolean) {
    this.#client = client;
    this.#isMine = isMine;
  }

  /** Checks that it was given what was accepted and is its own, and then the event "end" that is for everybody. */
  async expectAll(accepted: readonly Accepted[], seed: number): Promise<void> {
    const client = await within(
      this.#client.until(({ events }) => events.at(-1)?.data === "end"),
      "the end of the random events",
    );
    const mine = accepted.filter(({ event }) => this.#isMine(event)).sort((a, b) => seqOf(a.id) - seqOf(b.id));
    const seen = client.events.slice(1, -1);
    const wrong = mine.findIndex(({ id, event }, place) => {
      const { id: seenId, event: type, data } = seen[place] ?? {};
      return seenId !== id || type !== event.type || data !== event.data;
    });
    // The one that is wrong, and not a million bytes of others.
    const { index, event } = mine[wrong] ?? {};
    expect(
      [seed, index, event?.query, seen[wrong]?.event, seen[wrong]?.data.slice(0, 200)],
      event?.data.slice(0, 200),
    ).toEqual([seed, ...Array(4).fill(undefined)]);
    expect(seen.length).toBe(mine.length);
    client.leave();
  }
}

/** Readers of nothing, of one, of some and of all channels, and one whose inbox is written to. */
export async function readersOf(stage: Stage): Promise<readonly Reader[]> {
  const isCommon = ({ channels, id }: Posted): boolean => channels.length === 0 && id === undefined;
  const wishes: readonly (readonly [channels: readonly string[], id?: string])[] = [
    [[]],
    [["a"]],
    [["b&=+#%", "%61"]],
    [CHANNELS],
    [["@both"], "one"],
  ];
  return Promise.all(
    wishes.map(async ([channels, id]) => {
      const parameters = channels.map((name) => `channel=${percentText(name)}`);
      if (id !== undefined) parameters.push(`id=${id}`);
      const isMine = (event: Posted): boolean =>
        isCommon(event) ||
        (id !== undefined && event.id === id) ||
        event.channels.some((name) => channels.includes(name));
      return new Reader(await stage.join(`?${parameters.join("&")}`), isMine);
    }),
  );
}
