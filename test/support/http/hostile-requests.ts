import fc from "fast-check";
import { expect } from "vitest";
import { PlainClient } from "../clients/http-client.ts";
import { onWorkerd, type Platform, type Server } from "../servers/server.ts";

// What no honest client sends, and what may come of it.

/** What came back: a status, or the end of the connection without one. */
export interface Outcome {
  readonly status: number | "closed";
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Milliseconds in which an answer has to come, on a machine that is busy. */
const DEADLINE = 10_000;
/** Milliseconds after which one that may be waiting for more is told that there is no more. */
const PATIENCE = 250;

/** Rejects, with what it was that took so long. */
export async function within<T>(promise: Promise<T>, what: string, ms: number = DEADLINE): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms: ${what}`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A request as bytes; each character is one, so that any byte can be said. */
export const raw = (lines: readonly string[], body = ""): Buffer =>
  Buffer.from(`${lines.map((line) => `${line}\r\n`).join("")}\r\n${body}`, "latin1");

/** Sends bytes over a connection of their own. `isWhole`: there is nothing that a server could wait for. */
export async function provoke(server: Server, what: string, bytes: Buffer, isWhole: boolean): Promise<Outcome> {
  const client = new PlainClient(server.url);
  client.socket.write(bytes);
  const impatience = isWhole ? undefined : setTimeout(() => client.socket.end(), PATIENCE);
  const closed = (): Outcome => ({ status: "closed", headers: {}, body: "" });
  try {
    return await within(client.answer().catch(closed), `${server.platform}: ${what}`);
  } finally {
    clearTimeout(impatience);
    await client.leave("RST");
  }
}

/** What a server says by itself beyond 499, without having asked the broker: of methods and versions that it does not know. */
const OF_ITS_OWN = [501, 505];

/** Checks that it is clear what became of a request: an answer that means something, or a connection that was closed. */
export function expectClear(platform: Platform, what: string, { status, headers, body }: Outcome): void {
  if (status === "closed") return;
  const label = `${platform}: ${what}: ${status} ${body.slice(0, 200)}`;
  expect(status, label).toBeGreaterThanOrEqual(200);
  const byBroker = headers["content-type"] === "application/problem+json";
  // workerd says so of what it does not hand on; what it then complains of is looked at by `expectOutput`.
  const byWorkerd = status === 500 && onWorkerd(platform) && !byBroker && body === "Internal Server Error";
  if (status >= 500 && !byWorkerd) expect(byBroker ? [503] : OF_ITS_OWN, label).toContain(status);
  expect(Object.keys(headers), label).not.toContain("x-injected");
  expect(body, label).not.toMatch(/\bat .*:\d+:\d+|node_modules|\.[jt]s:\d/);
}

/** By this workerd says that it hands on no CONNECT. */
const UNHANDLED = /^.*(?:we lack a handler|does not export a connect\(\) function).*\n/gm;
/** And by this, that the Worker in front could not pass a request on to its object, because its URL is none to `fetch`. */
const UNPASSED = /^.*Fetch API cannot load: http:.*\n/gm;

/** Checks that what a server printed tells of nothing that broke. */
export function expectOutput(platform: Platform, output: string): void {
  let rest = output;
  if (onWorkerd(platform)) rest = rest.replace(UNHANDLED, "");
  // Where the broker itself is in front, it answers those.
  if (platform === "workerd") rest = rest.replace(UNPASSED, "");
  expect(rest).not.toMatch(/unhandled|uncaught|panic|fatal|\n\s+at /i);
}

/** It was not done, by whomever. */
export function expectRefused(platform: Platform, what: string, outcome: Outcome): void {
  expectClear(platform, what, outcome);
  if (outcome.status !== "closed") expect(outcome.status, `${platform}: ${what}`).toBeGreaterThanOrEqual(400);
}

// Requests made at random.

const METHODS = ["GET", "GET", "POST", "POST", "POST", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "FOO", "get"];
const PIECES = [
  ...["%ff", "%C0%AF", "%ED%A0%80", "%F0%9F%98%80", "%00", "%", "%zz", "+", "&", "=", "#", ";", "\xff", "a", "7"],
  ...["%0d%0ax-injected:%20yes", "%c4%8d%c4%8ax-injected:%20yes", "__proto__", "constructor", "fanwire-gap"],
  ...["&id=", "&channel=", "&type=", "&from=earliest", "&from=", "&lastEventId=", "x".repeat(300)],
];
const FIELDS = [
  ...["accept: text/event-stream", "last-event-id: 7", "last-event-id: x\xff", "last-event-id: ", "cookie: a=b"],
  ...[
    "origin: null",
    "origin: http://evil.test",
    "sec-fetch-site: cross-site",
    "idempotency-key: k",
    "connection: close",
  ],
  ...["idempotency-key: \xff", "expect: 100-continue", "expect: 200-never", "content-type: multipart/form-data"],
  ...[
    "host: ",
    "host: [",
    "host: evil.test",
    "upgrade: websocket",
    "connection: upgrade",
    "te: trailers",
    "range: bytes=0-1",
  ],
  ...[
    "transfer-encoding: gzip",
    "content-encoding: gzip",
    "content-length: 7",
    "no colon",
    "a b: c",
    ": d",
    "x: \0",
    " folded",
  ],
  `x-long: ${"y".repeat(2_000)}`,
];
/** How a body is announced, and how it then is. */
const FRAMINGS: readonly ((body: string) => [field: string, body: string])[] = [
  (body) => [`content-length: ${body.length}`, body],
  (body) => [`content-length: ${body.length + 9}`, body],
  (body) => [`content-length: ${body.length >> 1}`, body],
  (body) => ["content-length: -1", body],
  (body) => ["transfer-encoding: chunked", `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`],
  (body) => ["transfer-encoding: chunked", `${(body.length + 3).toString(16)}\r\n${body}\r\n0\r\n\r\n`],
  (body) => ["transfer-encoding: chunked", `${body.length.toString(16)};x="\r\n${body}\r\n`],
  (body) => ["transfer-encoding: chunked", body],
  (body) => ["x-framing: none", body],
];

/** A request for a broker whose paths begin with `base`, that went wrong in some ways, or in none. */
export function randomRequest(base: string): fc.Arbitrary<Buffer> {
  return fc
    .record({
      method: fc.constantFrom(...METHODS),
      verb: fc.constantFrom("connect", "broadcast", "broadcast", "nowhere"),
      query: fc.array(fc.constantFrom(...PIECES), { maxLength: 8 }),
      version: fc.oneof(
        { weight: 9, arbitrary: fc.constant("HTTP/1.1") },
        fc.constantFrom("HTTP/1.0", "HTTP/9.9", "x"),
      ),
      isTrusted: fc.boolean(),
      fields: fc.array(fc.constantFrom(...FIELDS), { maxLength: 4 }),
      framing: fc.constantFrom(...FRAMINGS),
      body: fc.string({ maxLength: 60 }),
      // Bytes that arrive as others, and the end that does not arrive at all.
      noise: fc.array(fc.tuple(fc.nat({ max: 400 }), fc.nat({ max: 255 })), { maxLength: 2 }),
      cut: fc.option(fc.nat({ max: 400 }), { freq: 5 }),
    })
    .map(({ method, verb, query, version, isTrusted, fields, framing, body, noise, cut }) => {
      const [announced, sent] = framing(`random ${body}`);
      const start = `${method} ${base}${verb}?`;
      const lines = [`${start}${query.join("")} ${version}`, "host: 127.0.0.1"];
      if (isTrusted) lines.push("authorization: Bearer secret");
      const bytes = raw([...lines, announced, ...fields], sent);
      // The path stays what it is: behind others there is no broker.
      for (const [place, byte] of noise) if (start.length + place < bytes.length) bytes[start.length + place] = byte;
      return cut === null ? bytes : bytes.subarray(0, start.length + cut);
    });
}
