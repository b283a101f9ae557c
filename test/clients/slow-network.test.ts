// The client on real servers, through a proxy that holds every chunk for a while, and now and then swallows everything or cuts the connection.
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, expect, inject, test, vi } from "vitest";
import { connect, type EventMap, type GapEvent } from "../../src/client/index.ts";
import { Random } from "../support/random.ts";
import { type Server, startServer } from "../support/servers/server.ts";
import { Tap } from "./tap.ts";

const SEED = Number(inject("seed") || 31);
const EVENTS = 100;
const FAULTS = ["swallow", "cut", "swallow"] as const;
/** Milliseconds. The server's heartbeat is a fifth of it, so that only a connection that is dead is that silent. */
const SILENCE = 1_000;

const servers: Server[] = [];
afterAll(() => {
  for (const server of servers) server.stop();
});

// One of each runtime, at the same time: most of it is waiting.
test.concurrent.each(["bun", "deno", "node", "workerd", "hub-bridge"] as const)(
  `the client on %s, over a network that is slow and fails: each event once and in order (seed ${SEED})`,
  async (platform) => {
    const random = new Random(SEED);
    const server = await startServer(platform);
    servers.push(server);
    const broker = await server.createBroker({ retry: 20, heartbeat: SILENCE / 5, maxBodyBytes: 1024 * 1024 });
    const tap = await Tap.start(server.port);
    const holds = random.fork();
    tap.hold = () => holds.integer(1, 50);
    const data: string[] = [];
    const gaps: GapEvent[] = [];
    let opened = 0;
    const client = connect<EventMap>(tap.url + broker.path("connect?id=me"), { silence: SILENCE });
    client.on("message", (event) => data.push(event.data));
    client.on("gap", (gap) => gaps.push(gap));
    client.on("state", ({ state }) => void (opened += Number(state === "open")));
    const until = (holds: () => boolean): Promise<unknown> => vi.waitUntil(holds, { timeout: 20_000, interval: 2 });
    await until(() => client.lastEventId !== "");

    const published: string[] = [];
    const places = random.sample([...Array(EVENTS).keys()], FAULTS.length).sort((a, b) => a - b);
    for (let n = 0; n < EVENTS; n++) {
      const fault = FAULTS[places.indexOf(n)];
      if (fault) {
        // The connection that is to fail is a living one.
        const before = opened;
        await until(() => data.length === n && client.state === "open");
        tap[fault]();
        published.push(`${n} after ${fault}`);
        expect((await broker.publish(published.at(-1) as string)).status).toBe(200);
        await until(() => opened > before);
        continue;
      }
      published.push(`${n} ${"x".repeat(random.pick([0, 10, 1_000, 40_000]))}`);
      expect((await broker.publish(published.at(-1) as string)).status).toBe(200);
      if (random.chance(0.3)) await wait(random.integer(1, 20));
    }
    await until(() => data.length >= EVENTS);
    // What came twice would come now.
    await wait(100);
    expect(data).toEqual(published);
    expect(gaps).toEqual([]);
    expect(opened).toBeGreaterThanOrEqual(1 + FAULTS.length);
    expect(tap.held).toBeGreaterThan(FAULTS.length * 2);
    client.close();
    tap.close();
  },
);
