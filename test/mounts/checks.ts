// The checks of the matrix. Each returns "✓" if the mount keeps the guarantee, and otherwise in a few words what happens.
import type { HttpRequestOptions } from "../support/clients/http-client.ts";
import type { SocketClient } from "../support/clients/socket-client.ts";
import type { MountServer } from "./mount-server.ts";
import type { MountState } from "./protocol.ts";

export const HOLDS = "✓";

/** What a check works with. */
export interface Subject {
  readonly server: MountServer;
  /** How long a check waits for what a mount may never do, in milliseconds. Long if it is expected to do it. */
  readonly patience: number;
  /** Where a body parser runs first, if the framework has one. */
  readonly parsedPath: string | undefined;
}
type Check = (subject: Subject) => Promise<string>;

/** Options of the broker for checks of streams that nothing is written to, and of requests. */
export const QUIET = { heartbeat: 600_000, timeout: 600_000 } as const;
/** Options of the broker for checks of streams that something is written to. */
export const BUSY = { heartbeat: 200, timeout: 1_500, tolerance: 1 } as const;

const FLOOD = { count: 1_000, bytes: 32_768 } as const;
/** What a client that reads nothing may still find at the end: the buffers of two sockets, and of a few streams. */
const MAX_UNREAD_BYTES = 16_000_000;
const LEAVERS = 20;
const AFTER_WRITE_MS = 1_000;
/** How long a client that reads may take for a flood, on a machine that is busy. */
const READING_MS = 40_000;

const pause = (ms = 20): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Resolves with whether a promise settles in time. */
const inTime = (promise: Promise<unknown>, ms: number): Promise<boolean> =>
  new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), ms);
    const end = (): void => {
      clearTimeout(timer);
      resolve(true);
    };
    promise.then(end, end);
  });

async function until(
  { server, patience }: Subject,
  condition: (state: MountState) => boolean,
  ms = patience,
): Promise<boolean> {
  const end = Date.now() + ms;
  for (;;) {
    if (condition(await server.state())) return true;
    if (Date.now() > end) return false;
    await pause();
  }
}

/** Opens a stream and returns it when it is ready, or says in words why it is not. */
async function open({ server, patience }: Subject, query = ""): Promise<SocketClient> {
  const client = server.connect(query);
  const isReady = await inTime(client.untilReady(), patience);
  if (isReady && client.control("ready").length > 0) return client;
  client.leave();
  throw new Outcome(client.status === 200 ? "no event" : client.status ? String(client.status) : "no answer");
}

/** An outcome that ends a check. */
class Outcome extends Error {}

async function outcomeOf(check: Check, subject: Subject): Promise<string> {
  try {
    return await check(subject);
  } catch (error) {
    if (error instanceof Outcome) return error.message;
    // A socket that was reset, or a process that has ended.
    return subject.server.exit === undefined ? "no answer" : "crash";
  }
}

/** Publishes, and checks that a subscriber receives the data. */
async function published(
  subject: Subject,
  data: string,
  request: HttpRequestOptions,
  path = "/events/broadcast",
): Promise<string> {
  const reader = await open(subject);
  try {
    const { status, body } = await answered(subject, subject.server.publish(request, path));
    if (status !== 200) return `${status}${codeOf(body)}`;
    if (
      !(await inTime(
        reader.until((client) => client.data.length > 0),
        subject.patience,
      ))
    )
      return "no event";
    return reader.data[0] === data ? HOLDS : "changed";
  } finally {
    reader.leave();
  }
}

async function answered<T>({ patience }: Subject, response: Promise<T>): Promise<T> {
  if (!(await inTime(response, patience))) throw new Outcome("no answer");
  return response;
}

/** The code of a problem, with a space before it. Nothing if another server than the broker has answered. */
function codeOf(body: string): string {
  const [, code] = /"code":"([a-z-]+)"/.exec(body) ?? [];
  return code ? ` ${code}` : "";
}

/** Waits until no client is left whose id begins with a prefix. */
async function allGone(subject: Subject, prefix: string): Promise<string> {
  const isGone = ({ stats, connected }: MountState): boolean =>
    stats.pending === 0 && !connected.some((id) => id.startsWith(prefix));
  if (await until(subject, isGone)) return HOLDS;
  for (let write = 1; write <= 2; write++) {
    await subject.server.publish({ body: "x" });
    if (await until(subject, isGone, AFTER_WRITE_MS)) return "at a write";
  }
  return "never";
}

/** Ends the server, and says how its process ended. */
async function exit({ server, patience }: Subject, signal: "SIGTERM" | "SIGINT"): Promise<string> {
  server.terminate(signal);
  const end = Date.now() + patience;
  while (server.exit === undefined && Date.now() < end) await pause();
  return server.exit === 0 ? HOLDS : server.exit === undefined ? "waits" : String(server.exit);
}

const JSON_BODY = JSON.stringify({ event: "price", data: { ada: 0.42 } });
const TEXT = "two lines\nof plain text, and a sign: €";

export const checks = {
  "first byte": async (subject) => {
    (await open(subject)).leave();
    return HOLDS;
  },
  text: (subject) => published(subject, TEXT, { body: TEXT, headers: { "content-type": "text/plain" } }),
  "curl -d": (subject) =>
    published(subject, "hello", { body: "hello", headers: { "content-type": "application/x-www-form-urlencoded" } }),
  JSON: (subject) => published(subject, JSON_BODY, { body: JSON_BODY }),
  chunked: (subject) =>
    published(subject, "onetwo", {
      body: "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n",
      headers: { "transfer-encoding": "chunked" },
    }),
  "after a parser": async (subject) =>
    subject.parsedPath === undefined ? "–" : published(subject, JSON_BODY, { body: JSON_BODY }, subject.parsedPath),
  form: async (subject) => {
    const { server, patience } = subject;
    const client = server.raw();
    try {
      const headers = { "content-type": "application/x-www-form-urlencoded", accept: "text/event-stream" };
      client.send("/events/connect", { method: "POST", headers, body: "channel=news&id=form" });
      const { status, body } = await answered(subject, client.response());
      if (status !== 200) return `${status}${codeOf(body)}`;
      const { unread } = client;
      await server.publish({ body: "for readers of news" }, "/events/broadcast?channel=news");
      const end = Date.now() + patience;
      while (client.unread === unread && Date.now() < end) await pause();
      return client.unread > unread ? HOLDS : "no event";
    } finally {
      await client.close();
    }
  },
  "413 too large": async (subject) => {
    const { server } = subject;
    const outcomes = new Set<string>();
    for (const headers of [{}, { "transfer-encoding": "chunked" }]) {
      const part = "x".repeat(100_000);
      const body = "transfer-encoding" in headers ? `186a0\r\n${part}\r\n186a0\r\n${part}\r\n0\r\n\r\n` : part;
      const { status, body: problem } = await answered(subject, server.publish({ headers, body }));
      outcomes.add(status === 413 && codeOf(problem) === " body-too-large" ? HOLDS : `${status}${codeOf(problem)}`);
      if (
        !(await inTime(
          open(subject).then((client) => client.leave()),
          subject.patience,
        ))
      )
        return "hangs";
    }
    return [...outcomes].join(", ");
  },
  "401 no token": async (subject) => {
    const { status, headers, body } = await answered(
      subject,
      subject.server.publish({ body: "x", headers: { authorization: "" } }),
    );
    const isWhole = codeOf(body) === " unauthorized" && headers["www-authenticate"] === "Bearer";
    return status === 401 && isWhole ? HOLDS : `${status}${codeOf(body)}`;
  },
  HEAD: async (subject) => {
    const client = subject.server.raw();
    try {
      // The second response shows that the first one has no body, and has ended.
      client.send("/events/connect?id=head", { method: "HEAD" });
      const head = await answered(subject, client.response());
      client.send("/events/connect", { method: "OPTIONS" });
      const { status } = await answered(subject, client.response());
      if (head.status !== 200 || !head.headers["content-type"]?.startsWith("text/event-stream"))
        return String(head.status);
      if (Number.isNaN(status)) return "a body";
      const inbox = subject.server.publish({ body: "x" }, "/events/broadcast?id=head");
      return codeOf((await answered(subject, inbox)).body) === " unknown-client" ? HOLDS : "a client";
    } finally {
      await client.close();
    }
  },
  OPTIONS: async (subject) => {
    const client = subject.server.raw();
    try {
      const { status, headers } = await answered(
        subject,
        client.send("/events/connect", { method: "OPTIONS" }).response(),
      );
      return status === 204 && headers.allow?.includes("GET") ? HOLDS : String(status);
    } finally {
      await client.close();
    }
  },
  "leaves idle": async (subject) => {
    const clients = await Promise.all([open(subject, "?id=idle-1"), open(subject, "?id=idle-2")]);
    clients[0]?.leave();
    clients[1]?.reset();
    return allGone(subject, "idle-");
  },
  "leaves at once": async (subject) => {
    const { server } = subject;
    for (let n = 0; n < LEAVERS; n++) {
      // Half of them leave while `authorize` decides.
      const client = server.connect(`?id=${n % 2 ? "once-late" : "once"}-${n}`);
      await new Promise((resolve) => client.socket.once("connect", resolve));
      await pause(n);
      n % 4 < 2 ? client.leave() : client.reset();
    }
    // Those that were sent before are with the broker when this one is.
    (await open(subject, "?id=once-late")).leave();
    return allGone(subject, "once");
  },
} satisfies Record<string, Check>;

export const busyChecks = {
  heartbeat: async (subject) => {
    const client = await open(subject);
    const { comments } = client;
    const isAlive = await inTime(
      client.until((reader) => reader.comments >= comments + 3),
      subject.patience,
    );
    client.leave();
    return isAlive ? HOLDS : "none";
  },
  "32 MB": async (subject) => {
    const { server } = subject;
    const healthy = await open(subject, "?id=healthy");
    healthy.countsOnly = true;
    const slow = await open(subject, "?id=slow");
    slow.countsOnly = true;
    slow.pause();
    await server.call("flood", FLOOD);
    const isEvicted = await until(subject, ({ ended }) =>
      ended.some(({ clientId, reason }) => clientId === "slow" && reason === "timeout"),
    );
    if (
      !(await inTime(
        healthy.until(({ count }) => count === FLOOD.count),
        READING_MS,
      ))
    )
      return "loss";
    healthy.leave();
    slow.resume();
    if (!isEvicted) {
      // However little time the check has for what does not happen: this one has it all in a buffer.
      await inTime(
        slow.until(({ count }) => count === FLOOD.count),
        READING_MS,
      );
      slow.leave();
      return slow.count === FLOOD.count ? "all buffered" : "not evicted";
    }
    if (!(await inTime(slow.untilEnded(), subject.patience))) return "stays open";
    return slow.receivedBytes < MAX_UNREAD_BYTES ? HOLDS : "not bounded";
  },
  "close()": async (subject) => {
    const clients = await Promise.all([open(subject), open(subject)]);
    await subject.server.call("close", {});
    for (const client of clients) {
      if (!(await inTime(client.untilEnded(), subject.patience))) return "stays open";
      if (client.control("end").length !== 1) return "no end event";
      if (client.ended !== "complete") return "cut";
    }
    return HOLDS;
  },
  stop: (subject) => exit(subject, "SIGTERM"),
} satisfies Record<string, Check>;

export const lastChecks = {
  "stop alone": async (subject) => {
    const client = await open(subject);
    const outcome = await exit(subject, "SIGINT");
    if (outcome !== HOLDS) return outcome;
    await client.untilEnded();
    return client.control("end").length === 1 ? HOLDS : "cut";
  },
} satisfies Record<string, Check>;

/** Columns about the whole life of the processes. */
const LIFE = ["errors", "output"] as const;

export type CheckName = keyof typeof checks | keyof typeof busyChecks | keyof typeof lastChecks | (typeof LIFE)[number];
/** The names of all checks, in the order of the table. */
export const CHECK_NAMES = [
  ...Object.keys(checks),
  ...Object.keys(busyChecks),
  ...Object.keys(lastChecks),
  ...LIFE,
] as CheckName[];

/** Runs a check. Never rejects. */
export const runCheck = (check: Check, subject: Subject): Promise<string> => outcomeOf(check, subject);
