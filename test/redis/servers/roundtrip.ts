/**
 * Tests one client library on the runtime that runs this file. Environment: LIBRARY (`ioredis`, `node-redis`, `bun`), REDIS_URL, PREFIX, IS_LAZY.
 * Uses a log as an engine does, loses its connections in between, and prints its observations as JSON.
 */
import { redisLog } from "../../../src/redis/redis-log.ts";
import { connect, until } from "./library.ts";

const { PREFIX = "roundtrip" } = process.env;

const { client, close } = await connect(process.env.IS_LAZY === "true");
const other = await connect(false);
const calls: string[] = [];
const events: { seq: number; keys: readonly string[]; text: string }[] = [];
let [hasFeed, hasCommands, checkpoints] = [false, false, 0];
const session = redisLog({ client, prefix: PREFIX, commandTimeout: 2_000 }).open({
  onEvent: ({ seq, keys, text }) => void events.push({ seq, keys, text }),
  onCheckpoint: () => void checkpoints++,
  onCommand: ({ type, clientId }) => void calls.push(`${type} ${clientId}`),
  onFeed(isConnected) {
    hasFeed = isConnected;
    calls.push(`feed ${isConnected}`);
  },
  onCommands(isConnected) {
    hasCommands = isConnected;
    calls.push(`commands ${isConnected}`);
  },
  onError: () => undefined,
});
const isReady = (): boolean => hasFeed && hasCommands;
const append = (keys: readonly string[], text: string): ReturnType<typeof session.append> =>
  session.append(keys, text, undefined, undefined, undefined);
const checkpoint = async (): Promise<void> => {
  const before = checkpoints;
  await session.requestCheckpoint(1, [], undefined);
  await until(() => checkpoints > before);
};

// A timer like the one with which the adapter of Bun's client looks at it. When it has fired twice, so has the other.
const POLL_MS = 50;
let polls = 0;
const timer = setInterval(() => polls++, POLL_MS);
const early = await append([""], "too early").catch((error: { code: string }) => error.code);
await until(() => isReady() && polls >= 2);
clearInterval(timer);
const start = calls.splice(0).sort();
await session.subscribe(["", "#a"]);
const TEXT = "data: ä€😀\ndata: \n\n";
const appended = await Promise.all(Array.from({ length: 50 }, (_, index) => append(["", "#a"], `${TEXT}${index}`)));
await checkpoint();
const live = events.splice(0);
const { epoch } = appended[0] ?? { epoch: "" };
const page = await session.read(epoch, ["#a"], 40, 1_000_000);
const inOrder = (seqs: readonly number[]): boolean => seqs.every((seq, index) => seq === (seqs[0] ?? 0) + index);

// A channel that is unsubscribed and subscribed again in one turn is subscribed in the end.
await Promise.all([session.unsubscribe(["#a"]), session.subscribe(["#a"]), session.unsubscribe([""])]);
await append([""], "not subscribed");
await append(["#a"], "subscribed again");
await checkpoint();
const resubscribed = events.splice(0).map(({ text }) => text);

const entered = await session.enter([{ clientId: "ä", subject: "s" }], "reject", 60_000);
const taken = await session.enter([{ clientId: "ä", subject: "s" }], "reject", 60_000);

const raw = other.client as unknown as {
  send?(command: string, args: string[]): Promise<unknown>;
  sendCommand?(args: string[]): Promise<unknown>;
  call?(...args: string[]): Promise<unknown>;
};
const [command, ...rest] = ["CLIENT", "KILL", "SKIPME", "yes"] as const;
const kill = (): Promise<unknown> | undefined =>
  raw.send?.(command, rest) ?? raw.call?.(command, ...rest) ?? raw.sendCommand?.([command, ...rest]);
calls.splice(0);
const killed = kill();
const waiting = append(["#a"], "at the kill").then(
  () => "published",
  (error: { code: string }) => error.code,
);
await killed;
const atKill = await waiting;
await until(() => calls.includes("feed false") && calls.includes("commands false") && isReady());
await session.subscribe(["#a"]);
const after = await append(["#a"], "after the kill");
await checkpoint();
const afterKill = events.map(({ text }) => text);

session.close(0);
other.close();
close();
console.log(
  JSON.stringify({
    early,
    start,
    seqs: inOrder(appended.map(({ seq }) => seq)),
    live: live.length === 50 && live.every(({ text, keys }, index) => text === `${TEXT}${index}` && keys.length === 2),
    page: page.records.map(({ seq, text }) => text === `${TEXT}${seq - 1}`),
    resubscribed,
    presences: [...entered, ...taken].map((answer) => (typeof answer === "number" ? "entered" : answer)),
    atKill: ["published", "publish-outcome-unknown", "engine-down"].includes(atKill),
    sameEpoch: after.epoch === epoch,
    afterKill,
    calls: [...new Set(calls)].sort(),
  }),
);
