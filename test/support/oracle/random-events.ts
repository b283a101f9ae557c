// Random events as they are sent over HTTP, and readers that check what they receive (HTML standard, section 9.2).
import { isUtf8 } from "node:buffer";
import fc from "fast-check";
import { expect } from "vitest";
import { seqOf } from "../clients/connection.ts";
import type { SocketClient } from "../clients/socket-client.ts";
import { within } from "../http/hostile-requests.ts";
import type { TestBroker } from "../servers/server.ts";

const CHANNELS = ["a", "b&=+#%", "%61", "\u{1f600}/?", "@both"];

/** An event for `POST /broadcast`. */
export interface RandomEvent {
  readonly query: string;
  readonly body: Buffer;
  /** The channels that it is published to. Without `channels` and `id` it is for every client. */
  readonly channels: readonly string[];
  /** The client that it is for. */
  readonly id: string | undefined;
  /** The type and the data as a reader receives them. */
  readonly type: string | undefined;
  readonly data: string;
  /** The code with which the broker must refuse it, if it must. */
  readonly refusal: string | undefined;
}

/** An event that the broker accepted. */
export interface Accepted {
  readonly index: number;
  readonly event: RandomEvent;
  /** The id that the broker assigned. */
  readonly id: string;
  /** The number of clients in the response. */
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
const validPiece = fc.oneof(
  fc.constantFrom(...NASTY).map((text) => Buffer.from(text)),
  fc.string({ unit: "binary", maxLength: 40 }).map((text) => Buffer.from(text)),
);
const piece = fc.oneof(
  validPiece,
  fc
    .constantFrom("\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90", "\xe2\x82", "\x80")
    .map((bytes) => Buffer.from(bytes, "latin1")),
  fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
);
const joined = (part: fc.Arbitrary<Buffer>, maxLength: number): fc.Arbitrary<Buffer> =>
  fc.array(part, { maxLength, size: "max" }).map((pieces) => Buffer.concat(pieces));

const MAX_BODY_BYTES = 65_536;
/** Most bodies are short, and some have the maximum length. Most are valid. */
const body = fc
  .tuple(
    fc.oneof({ weight: 5, arbitrary: joined(validPiece, 12) }, { weight: 1, arbitrary: joined(piece, 12) }),
    fc.oneof({ weight: 3, arbitrary: fc.constant(1) }, fc.integer({ min: 1, max: 400 })),
  )
  .map(([pattern, times]) => cut(Buffer.concat(Array.from({ length: times }, () => pattern))));

/** Cuts bytes to the maximum length. A character that is cut off is left out, unless the bytes are not UTF-8 anyway. */
function cut(whole: Buffer): Buffer {
  if (whole.length <= MAX_BODY_BYTES) return whole;
  const part = whole.subarray(0, MAX_BODY_BYTES);
  const valid = Buffer.from(new TextDecoder("utf-8", { ignoreBOM: true }).decode(part, { stream: true }));
  return valid.equals(part.subarray(0, valid.length)) ? valid : part;
}

const decode = (text: Buffer): string => new TextDecoder("utf-8", { ignoreBOM: true }).decode(text);
const percent = (text: Buffer): string => Array.from(text, (byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
const percentText = (text: string): string => percent(Buffer.from(text));

const randomEvent: fc.Arbitrary<RandomEvent> = fc
  .record({
    type: fc.oneof(
      { weight: 2, arbitrary: fc.constant(Buffer.of()) },
      joined(piece, 3),
      fc.constantFrom(...["fanwire-gap", "error", "open"].map((name) => Buffer.from(name))),
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
    const isBadType = /[\r\n\0]/.test(name) || name.startsWith("fanwire-") || name === "error" || name === "open";
    return {
      query: parameters.join("&"),
      body,
      channels,
      id,
      type: name === "" ? undefined : name,
      data: data.replace(/\r\n|\r/g, "\n"),
      refusal: isBadType ? "bad-event-type" : !isUtf8(body) ? "bad-request" : data === "" ? "no-event-data" : undefined,
    };
  });

/** Returns events with at least `size` bytes of bodies together. The same seed gives the same events. */
export function createRandomEvents(seed: number, size: number): readonly RandomEvent[] {
  const events: RandomEvent[] = [];
  let length = 0;
  for (let part = 0; length < size; part++) {
    for (const event of fc.sample(randomEvent, { seed: seed + part, numRuns: 100 })) {
      events.push(event);
      length += event.body.length;
      if (length >= size) break;
    }
  }
  return events;
}

/** A client that expects the events of its channels. */
class Reader {
  readonly #client: SocketClient;
  readonly #isOwn: (event: RandomEvent) => boolean;

  constructor(client: SocketClient, isOwn: (event: RandomEvent) => boolean) {
    this.#client = client;
    this.#isOwn = isOwn;
  }

  /** Expects that the client receives its accepted events and then the event "end", which is for every client. */
  async expectAll(accepted: readonly Accepted[], seed: number): Promise<void> {
    const client = await within(
      this.#client.until(({ events }) => events.at(-1)?.data === "end"),
      "the end of the random events",
    );
    const own = accepted.filter(({ event }) => this.#isOwn(event)).sort((a, b) => seqOf(a.id) - seqOf(b.id));
    const received = client.events.slice(1, -1);
    const wrong = own.findIndex(({ id, event }, position) => {
      const { id: receivedId, event: type, data } = received[position] ?? {};
      return receivedId !== id || type !== event.type || data !== event.data;
    });
    // Only the wrong event, so that a failure does not print a million bytes of other events.
    const { index, event } = own[wrong] ?? {};
    expect(
      [seed, index, event?.query, received[wrong]?.event, received[wrong]?.data.slice(0, 200)],
      event?.data.slice(0, 200),
    ).toEqual([seed, ...Array(4).fill(undefined)]);
    expect(received.length).toBe(own.length);
    client.leave();
  }
}

/** Connects readers of no channel, of one, of some and of all channels, and a reader whose inbox receives events. */
export async function connectReaders(broker: TestBroker): Promise<readonly Reader[]> {
  const isCommon = ({ channels, id }: RandomEvent): boolean => channels.length === 0 && id === undefined;
  const readers: readonly (readonly [channels: readonly string[], id?: string])[] = [
    [[]],
    [["a"]],
    [["b&=+#%", "%61"]],
    [CHANNELS],
    [["@both"], "one"],
  ];
  return Promise.all(
    readers.map(async ([channels, id]) => {
      const parameters = channels.map((name) => `channel=${percentText(name)}`);
      if (id !== undefined) parameters.push(`id=${id}`);
      const isOwn = (event: RandomEvent): boolean =>
        isCommon(event) ||
        (id !== undefined && event.id === id) ||
        event.channels.some((name) => channels.includes(name));
      return new Reader(await broker.join(`?${parameters.join("&")}`), isOwn);
    }),
  );
}
