/**
 * One client library on the runtime that runs this file, as roundtrip.ts: holds back what the server says to the feed, and prints as JSON whether
 * a subscription was taken for confirmed before that came.
 */
import { createServer, connect as dial } from "node:net";
import { redisLog } from "../../../src/redis/redis-log.ts";
import { connect, until } from "./library.ts";

const { port: target } = new URL(process.env.REDIS_URL ?? "");
let held: (() => void)[] | undefined;
const proxy = createServer((client) => {
  const server = dial(Number(target), "127.0.0.1");
  client.on("data", (data) => server.write(data));
  server.on("data", (data) => {
    if (held) held.push(() => client.write(data));
    else client.write(data);
  });
  for (const socket of [client, server]) {
    socket.on("error", () => undefined);
    socket.on("close", () => {
      client.destroy();
      server.destroy();
    });
  }
});
await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", () => resolve()));
const { port } = proxy.address() as { port: number };

const { client, close } = await connect(false);
let hasFeed = false;
const nothing = (): void => undefined;
const session = redisLog({
  client,
  subscriber: async () => (await connect(true, `redis://127.0.0.1:${port}`)).client,
  prefix: process.env.PREFIX ?? "confirmation",
}).open({
  onEvent: nothing,
  onCheckpoint: nothing,
  onCommand: nothing,
  onFeed: (isThere) => {
    hasFeed = isThere;
  },
  onCommands: nothing,
  onError: nothing,
});
await until(() => hasFeed);
// Each of several channels is confirmed by itself.
await session.subscribe(["#a", "#b", "#c"]);
held = [];
const answers = held;
let isConfirmed = false;
const subscribing = session.subscribe(["#d", "#e", "#f"]).then(() => {
  isConfirmed = true;
});
await until(() => answers.length > 0);
const tooEarly = isConfirmed;
held = undefined;
for (const give of answers) give();
await subscribing;
console.log(JSON.stringify({ tooEarly, isConfirmed }));
session.close(0);
await close();
proxy.close();
