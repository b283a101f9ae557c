// Requests that no honest client sends, and checks of their outcomes.
import fc from "fast-check";
import { expect } from "vitest";
import { RawHttpClient } from "../clients/http-client.ts";
import { type Platform, type Server, usesWorkerd } from "../servers/server.ts";

/** The response to a request, or the end of the connection without one. */
export interface Outcome {
  readonly status: number | "closed";
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Milliseconds in which a response has to come, on a busy machine. */
const DEADLINE_MS = 10_000;
/** Milliseconds after which the client ends its side, for a server that may wait for more bytes. */
const MORE_BYTES_MS = 250;

/** Rejects if a promise is not settled in time. `name` names it in the error. */
export async function within<T>(promise: Promise<T>, name: string, ms: number = DEADLINE_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`Waiting for ${name}: not done within ${ms} ms.`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Returns a request as bytes. Each character is one byte, so that a test can write any byte. */
export const rawRequest = (lines: readonly string[], body = ""): Buffer =>
  Buffer.from(`${lines.map((line) => `${line}\r\n`).join("")}\r\n${body}`, "latin1");

/** Sends bytes over a new connection. `isWhole`: a server has no reason to wait for more bytes. */
export async function sendRaw(server: Server, name: string, bytes: Buffer, isWhole: boolean): Promise<Outcome> {
  const client = new RawHttpClient(server.url);
  client.socket.write(bytes);
  const timer = isWhole ? undefined : setTimeout(() => client.socket.end(), MORE_BYTES_MS);
  const closed = (): Outcome => ({ status: "closed", headers: {}, body: "" });
  try {
    return await within(client.response().catch(closed), `the response of ${server.platform} to ${name}`);
  } finally {
    clearTimeout(timer);
    await client.close("RST");
  }
}

/** Statuses above 499 with which a server answers methods and versions that it does not know, without calling the broker. */
const SERVER_STATUSES = [501, 505];

/** Expects that a request was answered with a sensible status, or that its connection was closed. */
export function expectClearOutcome(platform: Platform, name: string, { status, headers, body }: Outcome): void {
  if (status === "closed") return;
  const label = `${platform}: ${name}: ${status} ${body.slice(0, 200)}`;
  expect(status, label).toBeGreaterThanOrEqual(200);
  const isFromBroker = headers["content-type"] === "application/problem+json";
  // workerd answers so when it does not pass a request on. `expectCleanOutput` checks the error that it then prints.
  const isFromWorkerd = status === 500 && usesWorkerd(platform) && !isFromBroker && body === "Internal Server Error";
  if (status >= 500 && !isFromWorkerd) expect(isFromBroker ? [503] : SERVER_STATUSES, label).toContain(status);
  expect(Object.keys(headers), label).not.toContain("x-injected");
  expect(body, label).not.toMatch(/\bat .*:\d+:\d+|node_modules|\.[jt]s:\d/);
}

/** The notice of workerd that it does not pass CONNECT on. */
const UNHANDLED = /^.*(?:we lack a handler|does not export a connect\(\) function).*\n/gm;
/** The notice of workerd that the Worker in front could not pass a request on to its object, because its URL is not valid for `fetch`. */
const UNPASSED = /^.*Fetch API cannot load: http:.*\n/gm;

/** Expects that the output of a server has no error. */
export function expectCleanOutput(platform: Platform, output: string): void {
  let rest = output;
  if (usesWorkerd(platform)) rest = rest.replace(UNHANDLED, "");
  // With a hub, the broker's own code is in front and answers such requests.
  if (platform === "workerd") rest = rest.replace(UNPASSED, "");
  expect(rest).not.toMatch(/unhandled|uncaught|panic|fatal|\n\s+at /i);
}

/** Expects that the server or the broker refused a request. */
export function expectRefused(platform: Platform, name: string, outcome: Outcome): void {
  expectClearOutcome(platform, name, outcome);
  if (outcome.status !== "closed") expect(outcome.status, `${platform}: ${name}`).toBeGreaterThanOrEqual(400);
}

// Random requests.

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
/** Pairs of a header field that announces a body, and the body that follows. */
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

/** Returns requests for a broker whose paths begin with `base`, with some faults or none. */
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
      // Bytes that change on the way, and an end that does not arrive.
      noise: fc.array(fc.tuple(fc.nat({ max: 400 }), fc.nat({ max: 255 })), { maxLength: 2 }),
      cut: fc.option(fc.nat({ max: 400 }), { freq: 5 }),
    })
    .map(({ method, verb, query, version, isTrusted, fields, framing, body, noise, cut }) => {
      const [announced, sent] = framing(`random ${body}`);
      const start = `${method} ${base}${verb}?`;
      const lines = [`${start}${query.join("")} ${version}`, "host: 127.0.0.1"];
      if (isTrusted) lines.push("authorization: Bearer secret");
      const bytes = rawRequest([...lines, announced, ...fields], sent);
      // The path does not change, because other paths lead to no broker.
      for (const [place, byte] of noise) if (start.length + place < bytes.length) bytes[start.length + place] = byte;
      return cut === null ? bytes : bytes.subarray(0, start.length + cut);
    });
}
