/**
 * Tests one client library on the runtime that runs this file; environment as in roundtrip.ts. Holds back the server's replies to the feed, and
 * prints as JSON whether a subscription counted as confirmed before they arrived.
 */
import { createServer, connect as dial } from "node:net";
import { redisLog } from "../../../src/redis/redis-log.ts";
import { connect, until } from "./library.ts";

const { port: target } = new URL(process.env.REDIS_URL ?? "");
let heldBack: (() => void)[] | undefined;
const proxy = createServer((client) => {
  const server = dial(Number(target), "127.0.0.1");
  client.on("data", (data) => server.write(data));
  server.on("data", (data) => {
    if (heldBack) heldBack.push(() => client.write(data));
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
const ignore = (): void => undefined;
const session = redisLog({
  client,
  subscriber: async () => (await connect(true, `redis://127.0.0.1:${port}`)).client,
  prefix: process.env.PREFIX ?? "confirmation",
}).open({
  onEvent: ignore,
  onCheckpoint: ignore,
  onCommand: ignore,
  onFeed: (isConnected) => {
    hasFeed = isConnected;
  },
  onCommands: ignore,
  onError: ignore,
});
await until(() => hasFeed);
// The server confirms each of several channels by itself.
await session.subscribe(["#a", "#b", "#c"]);
heldBack = [];
const replies = heldBack;
let isConfirmed = false;
const subscribing = session.subscribe(["#d", "#e", "#f"]).then(() => {
  isConfirmed = true;
});
await until(() => replies.length > 0);
const tooEarly = isConfirmed;
heldBack = undefined;
for (const release of replies) release();
await subscribing;
console.log(JSON.stringify({ tooEarly, isConfirmed }));
session.close(0);
await close();
proxy.close();
