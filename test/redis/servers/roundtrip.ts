/**
 * One client library on the runtime that runs this file: LIBRARY (`ioredis`, `node-redis`, `bun`) and REDIS_URL from the environment. Does what an
 * engine does with a log, loses its connections on the way, and prints as JSON what it saw.
 */
import { redisLog } from "../../../src/redis/redis-log.ts";
import { connect, until } from "./library.ts";

const { PREFIX = "roundtrip" } = process.env;

const { client, close } = await connect(process.env.IS_LAZY === "true");
const other = await connect(false);
const told: string[] = [];
const messages: { seq: number; keys: readonly string[]; text: string }[] = [];
let [hasFeed, hasCommands, marks] = [false, false, 0];
const session = redisLog({ client, prefix: PREFIX, commandTimeout: 2_000 }).open({
  onEvent: ({ seq, keys, text }) => void messages.push({ seq, keys, text }),
  onCheckpoint: () => void marks++,
  onCommand: ({ type: what, clientId }) => void told.push(`${what} ${clientId}`),
  onFeed(isThere) {
    hasFeed = isThere;
    told.push(`feed ${isThere}`);
  },
  onCommands(isThere) {
    hasCommands = isThere;
    told.push(`commands ${isThere}`);
  },
  onError: () => undefined,
});
const isReady = (): boolean => hasFeed && hasCommands;
const append = (keys: readonly string[], text: string): ReturnType<typeof session.append> =>
  session.append(keys, text, undefined, undefined, undefined);
const mark = async (): Promise<void> => {
  const before = marks;
  await session.requestCheckpoint(1, [], undefined);
  await until(() => marks > before);
};

const early = await append([""], "too early").catch((error: { code: string }) => error.code);
await until(isReady);
await session.subscribe(["", "#a"]);
const TEXT = "data: ä€😀\ndata: \n\n";
const appended = await Promise.all(Array.from({ length: 50 }, (_, index) => append(["", "#a"], `${TEXT}${index}`)));
await mark();
const live = messages.splice(0);
const { epoch } = appended[0] ?? { epoch: "" };
const page = await session.read(epoch, ["#a"], 40, 1_000_000);
const inOrder = (seqs: readonly number[]): boolean => seqs.every((seq, index) => seq === (seqs[0] ?? 0) + index);

// What goes in and out of a subscription in one turn is in it at the end.
await Promise.all([session.unsubscribe(["#a"]), session.subscribe(["#a"]), session.unsubscribe([""])]);
await append([""], "not subscribed");
await append(["#a"], "subscribed again");
await mark();
const again = messages.splice(0).map(({ text }) => text);

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
told.length = 0;
const killed = kill();
const waiting = append(["#a"], "at the kill").then(
  () => "published",
  (error: { code: string }) => error.code,
);
await killed;
const atKill = await waiting;
await until(() => told.includes("feed false") && told.includes("commands false") && isReady());
await session.subscribe(["#a"]);
const after = await append(["#a"], "after the kill");
await mark();
const healed = messages.map(({ text }) => text);

session.close(0);
other.close();
close();
console.log(
  JSON.stringify({
    early,
    seqs: inOrder(appended.map(({ seq }) => seq)),
    live: live.length === 50 && live.every(({ text, keys }, index) => text === `${TEXT}${index}` && keys.length === 2),
    page: page.records.map(({ seq, text }) => text === `${TEXT}${seq - 1}`),
    again,
    presences: [...entered, ...taken].map((answer) => (typeof answer === "number" ? "entered" : answer)),
    atKill: ["published", "publish-outcome-unknown", "engine-down"].includes(atKill),
    sameEpoch: after.epoch === epoch,
    healed,
    told: [...new Set(told)].sort(),
  }),
);
