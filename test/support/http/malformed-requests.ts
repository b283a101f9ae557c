// Requests that are wrong in one way each. Each character is one byte, so that a list can contain any byte.

const HOST = "host: 127.0.0.1";
/** Data that no client may ever receive. */
export const NEVER_PUBLISHED = "NEVER";
/** The length of a head that most servers accept. */
const KILOBYTES = 8_000;
export const MEGABYTE = 1_000_000;

export const METHODS = [
  "TRACE",
  "CONNECT",
  "FOO",
  "PROPFIND",
  "M-SEARCH",
  "PURGE",
  "",
  " ",
  "G\0T",
  "GET\t",
  "\xc7ET",
  "x".repeat(KILOBYTES),
];

/** Request targets. `~` stands for the path of the broker. */
export const TARGETS = [
  ...[
    "",
    "*",
    "?",
    "#",
    "connect",
    "~connect#x",
    "~./connect",
    "~nowhere/../connect",
    "~%2e/connect",
    "/../..~connect",
  ],
  ...[
    "~\\connect",
    "~/connect",
    "/~connect",
    "~%63onnect",
    "~connect/",
    "~connect%00",
    "~connect%2f",
    "~connect;a=b",
    "~CONNECT",
  ],
  ...["http://evil.test~connect", "http://[~connect", "http://a:b@evil.test~connect", "http://evil.test:99999~connect"],
  ...["ftp://evil.test~connect", "javascript:alert(1)", "evil.test:443", "//evil.test~connect", "file:///etc/passwd"],
  ...[
    "~connect?\xff=\xc3",
    "~nowhere/\xff\xfe",
    "~nowhere/%",
    "~nowhere/%zz",
    "~nowhere/%c0%ae%c0%ae/connect",
    "~nowhere/%00",
  ],
  ...[
    "~nowhere/\x01",
    "~nowhere/\x7f",
    "~nowhere/a b",
    "~nowhere/a\tb",
    "~connect\0",
    "~connect?a=b c",
    "~nowhere/%u0041",
  ],
  ...[
    `~nowhere/${"a/".repeat(KILOBYTES / 2)}`,
    `~nowhere/${"../../".repeat(KILOBYTES / 3)}`,
    `~nowhere/${"x".repeat(MEGABYTE)}`,
  ],
];

/** Queries of a client that reach the broker, and the status of its response. */
export const QUERIES: readonly (readonly [query: string, status: number])[] = [
  ["id=%ff", 200],
  ["id=%C0%AF", 200],
  ["id=%ED%A0%80", 200],
  ["id=%F4%90%80%80", 200],
  ["id=%EF%BB%BF", 200],
  ["id=%E2%80%A8", 200],
  ["id=%", 200],
  ["id=%zz", 200],
  ["id", 200],
  ["x-id=a&id=b", 200],
  ["=&&==&?", 200],
  ["%00=%00&%ff=%ff", 200],
  ["&".repeat(5_000), 200],
  ["__proto__=x&constructor=y&toString", 200],
  [`lastEventId=${"7".repeat(KILOBYTES)}`, 200],
  ["channel=a&channel=a&channel=%61", 200],
  ["id=%c4%8d%c4%8ax-injected:%20yes", 200],
  ["lastEventId=a-1&lastEventId=b-2", 400],
  ["ID=a&id=b", 400],
  ["channels=a&".repeat(1_000), 400],
  ["%63hannel%73=a", 400],
  ["id=%0d%0ax-injected:%20yes", 400],
  ["id=%C2%85&id=%C2%85", 400],
  ["id=&id=", 400],
  ["channel", 400],
  ["channel=a&channel=%00", 400],
  ["channel=fanwire-inbox", 400],
  ["from=earliest&from=earliest", 400],
  ["from=__proto__", 400],
  [`id=${"x".repeat(257)}`, 400],
  [`id=${"x".repeat(KILOBYTES)}`, 400],
  [`channel=${"x".repeat(KILOBYTES)}`, 400],
  [Array.from({ length: 101 }, (_, n) => `channel=${n}`).join("&"), 400],
  [Array.from({ length: 1_000 }, (_, n) => `channel=${n.toString(36)}`).join("&"), 400],
];

/** Header fields of a client, as lines. */
export const FIELDS: readonly (readonly string[])[] = [
  Array.from({ length: 10_000 }, (_, n) => `x-${n}: y`),
  Array.from({ length: 10_000 }, () => "x: y"),
  Array.from({ length: 500 }, () => "last-event-id: 7"),
  [`x: ${"y".repeat(MEGABYTE)}`],
  [`${"x".repeat(MEGABYTE)}: y`],
  [`last-event-id: ${"7".repeat(MEGABYTE)}`],
  [`cookie: ${"a=b; ".repeat(KILOBYTES / 5)}`],
  ...["x", "x : y", " x: y", ": y", "b@d[]: y", "\xff: y", "x: \0", "x: a\rb", "x: a\nb: c", "x: \x7f", "x\0: y"].map(
    (line) => [line],
  ),
  ...[
    "",
    "[",
    "[::1",
    "a b",
    "a/b",
    "a?b",
    "a#b",
    "a@b",
    "user:pw@host",
    "a:99999",
    "a:b",
    "%zz",
    "\xe9",
    "a,b",
    "..",
    "a\0",
  ].map((host) => [`host: ${host}`]),
  ["host: 127.0.0.1", "host: evil.test"],
  [HOST, "content-length: 5"],
  [HOST, "content-length: 0", "content-length: 0"],
  [HOST, "transfer-encoding: chunked"],
  [HOST, "expect: 200-maybe"],
  [
    HOST,
    "connection: upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
  ],
  [HOST, "connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__"],
  [HOST, "connection: host, content-length, close", "te: gzip;q=x", "trailer: host"],
  [HOST, "range: bytes=0-0", "if-none-match: *", "accept-encoding: gzip;q=9, *;q=x", "max-forwards: -1"],
];

/** Bytes that are not HTTP. */
export const NOT_HTTP = [
  "\r\n".repeat(KILOBYTES),
  "\0".repeat(KILOBYTES),
  "GET\r\n\r\n",
  "GET /\r\n",
  "GET / HTTP/0.9\r\n\r\n",
  "GET / HTTP/1.1\nhost: a\n\n",
  "HTTP/1.1 200 OK\r\n\r\n",
  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
  "\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
  "x".repeat(MEGABYTE),
];

/** Bodies of events that do not match their head, as header fields and body. None of them may be published. */
export const MISFRAMED_BODIES: readonly (readonly [fields: readonly string[], body: string])[] = [
  ...["-5", "+5", "5x", "0x5", "5 5", "5, 6", "1e1", "5.0", "\u00b5", "99999999999999999999"].map(
    (length) => [[`content-length: ${length}`], NEVER_PUBLISHED] as const,
  ),
  [["content-length: 5", "content-length: 6"], `${NEVER_PUBLISHED}x`],
  [["content-length: 6"], NEVER_PUBLISHED],
  [["content-length: 1000000000000"], NEVER_PUBLISHED],
  ...[
    `Z\r\n${NEVER_PUBLISHED}\r\n0\r\n\r\n`,
    `-5\r\n${NEVER_PUBLISHED}\r\n0\r\n\r\n`,
    `0x5\r\n${NEVER_PUBLISHED}\r\n0\r\n\r\n`,
    `\r\n${NEVER_PUBLISHED}\r\n0\r\n\r\n`,
    `${NEVER_PUBLISHED}`,
    `4\r\n${NEVER_PUBLISHED}\r\n0\r\n\r\n`,
    `6\r\n${NEVER_PUBLISHED}\r\n0\r\n\r\n`,
    `5\r\n${NEVER_PUBLISHED}`,
    `5\r\n${NEVER_PUBLISHED}\r\n`,
    `5\r\n${NEVER_PUBLISHED}\r\n0`,
    `5\r\n${NEVER_PUBLISHED}0\r\n\r\n`,
    `ffffffffffffffff\r\n${NEVER_PUBLISHED}\r\n0\r\n\r\n`,
    `10000000000000005\r\n${NEVER_PUBLISHED}\r\n0\r\n\r\n`,
  ].map((body) => [["transfer-encoding: chunked"], body] as const),
];
