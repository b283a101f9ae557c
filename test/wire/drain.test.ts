// A deployment as 1,000 browsers see it: the process closes its broker over five seconds and ends, and another process takes over its address. The
// log of the memory engine ends with the first process, so the second one owes the clients a gap.
import { afterEach, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { type Platform, type Server, startServer, TestBroker } from "../support/servers/server.ts";

const CLIENTS = 1_000;
const SPREAD_OVER_MS = 5_000;
const RETRY_MS = 2_000;
const BUCKET_MS = 250;

/** One connection of a client, from the attempt to its end. */
interface Visit {
  readonly client: SocketClient;
  readonly begun: number;
  ended: number;
}

/** A client that behaves like an EventSource: after the end of a stream it waits for the reconnection time, and comes back with its last id. */
class Returning {
  readonly visits: Visit[] = [];
  readonly #url: string;
  #retry = 3_000;
  #lastEventId: string | undefined;
  #stopped = false;

  constructor(url: string) {
    this.#url = url;
    void this.#live();
  }

  get client(): SocketClient {
    return (this.visits.at(-1) as Visit).client;
  }

  stop(): void {
    this.#stopped = true;
    this.client.leave();
  }

  async #live(): Promise<void> {
    while (!this.#stopped) {
      const headers = this.#lastEventId === undefined ? {} : { "last-event-id": this.#lastEventId };
      const visit: Visit = { client: new SocketClient(this.#url, headers), begun: performance.now(), ended: Infinity };
      this.visits.push(visit);
      const { client } = visit;
      await client.untilEnded();
      visit.ended = performance.now();
      client.leave();
      this.#retry = client.retry ?? this.#retry;
      this.#lastEventId = client.lastEventId ?? this.#lastEventId;
      // A status other than 200 ends an EventSource for good; a refused connection does not.
      if (client.status !== 200 && client.status !== 0) return;
      await new Promise((resolve) => setTimeout(resolve, this.#retry));
    }
  }
}

/** Counts moments per bucket of {@link BUCKET_MS}. */
function countsOf(moments: readonly number[]): number[] {
  const counts = Array.from({ length: 1 + Math.floor(Math.max(0, ...moments) / BUCKET_MS) }, () => 0);
  for (const moment of moments)
    counts[Math.floor(moment / BUCKET_MS)] = (counts[Math.floor(moment / BUCKET_MS)] ?? 0) + 1;
  return counts;
}

/** Returns the share of the fullest bucket. */
const fullest = (moments: readonly number[]): number => Math.max(...countsOf(moments)) / moments.length;

/** Draws a histogram. Several rows of moments are stacked, each with its own mark. */
function histogram(title: string, rows: Readonly<Record<string, readonly number[]>>): string {
  const counted = Object.entries(rows).map(([mark, moments]) => [mark, countsOf(moments)] as const);
  const length = Math.max(...counted.map(([, counts]) => counts.length));
  const lines = Array.from({ length }, (_, index) => {
    const bars = counted.map(([mark, counts]) => mark.repeat(Math.ceil((counts[index] ?? 0) / 3)));
    const sum = counted.reduce((total, [, counts]) => total + (counts[index] ?? 0), 0);
    return `${String(index * BUCKET_MS).padStart(6)} ms ${bars.join("")} ${sum || ""}`;
  });
  return [title, ...lines].join("\n");
}

const endOf = ({ events }: SocketClient): unknown => JSON.parse(events.at(-1)?.data ?? "null");
const CLOSING = { reason: "closing", reconnect: true };

describe.each(["bun", "deno", "node-hono", "workerd"] satisfies Platform[])("a deployment on %s", (platform) => {
  const servers: Server[] = [];
  const clients: Returning[] = [];
  afterEach(() => {
    for (const client of clients.splice(0)) client.stop();
    for (const server of servers.splice(0)) server.stop();
  });

  test("close({ spreadOver }): every stream ends with fanwire-end, and all clients reconnect to the next process, spread over time", async () => {
    const first = await startServer(platform);
    servers.push(first);
    const broker = await first.createBroker({ retry: RETRY_MS });
    for (let n = 0; n < CLIENTS; n++) clients.push(new Returning(first.url + broker.path(`connect?id=c${n}`)));
    await Promise.all(clients.map(({ client }) => client.untilReady()));
    expect((await broker.state()).stats.clients).toBe(CLIENTS);
    await broker.publish("one");
    await broker.control("flood", { count: 20, bytes: 100 });

    const from = performance.now();
    await broker.control("close", { spreadOver: SPREAD_OVER_MS, first: "the last word" });
    const closed = performance.now() - from;
    await Promise.all(clients.map(({ visits }) => visits[0]?.client.untilEnded()));
    await first.stopGracefully();
    const second = await startServer(platform, { fixedPort: first.port });
    servers.push(second);
    const next = new TestBroker(second, broker.name);
    // The new process creates the broker before its first client comes.
    await next.untilState((state) => "stats" in state && state.stats.clients === CLIENTS);
    const welcome = (await (await next.publish("welcome")).json()) as { id: string };
    await Promise.all(clients.map(({ client }) => client.until(({ data }) => data.length > 0)));
    const [epoch] = welcome.id.split("-");

    const firsts = clients.map((client) => client.visits[0] as Visit);
    const lasts = clients.map((client) => client.visits.at(-1) as Visit);
    const between = clients.flatMap((client) => client.visits.slice(1, -1));
    const cameEarly = between.filter(({ client }) => client.status === 200);
    const refused = between.filter(({ client }) => client.status === 0);
    const since = (visits: readonly Visit[], moment: "begun" | "ended"): number[] =>
      visits.map((visit) => visit[moment] - from);
    const ends = since(firsts, "ended");
    const arrivals = since(lasts, "begun");
    console.log(
      `${CLIENTS} clients on ${platform}, close({ spreadOver: ${SPREAD_OVER_MS} }) resolved after ${Math.round(closed)} ms`,
      histogram("\nends", { "█": ends }),
      histogram(
        `\nreconnects: ░ ${cameEarly.length} asked to come back, x ${refused.length} refused, █ at the next process`,
        {
          "░": since(cameEarly, "begun"),
          x: since(refused, "begun"),
          "█": arrivals,
        },
      ),
    );

    // All clients received everything that was published before the close.
    const ids = firsts[0]?.client.events.map(({ id }) => id);
    for (const { client } of firsts) {
      expect(client.data.map((data) => data.split(" ")[0])).toEqual([
        "one",
        ...Array.from({ length: 20 }, (_, n) => String(n)),
        "the",
      ]);
      expect(client.events.map(({ id }) => id)).toEqual(ids);
      expect(client.events.filter(({ event }) => event).map(({ event }) => event)).toEqual([
        "fanwire-ready",
        "fanwire-end",
      ]);
    }
    // Every stream, also of clients that came back too early, ended with its reason and a reconnection time.
    for (const { client } of [...firsts, ...cameEarly]) {
      expect([client.status, client.ended, endOf(client)]).toEqual([200, "complete", CLOSING]);
      expect(client.retry).toBeGreaterThanOrEqual(RETRY_MS / 2);
      expect(client.retry).toBeLessThanOrEqual(1.5 * RETRY_MS);
    }
    // A client that came back too early received only the end event, or its connection was refused. No client got a status that ends an EventSource.
    expect(cameEarly.length).toBeGreaterThan(0);
    for (const { client } of cameEarly) expect(client.events).toHaveLength(1);
    expect(cameEarly.length + refused.length).toBe(between.length);
    // All clients are connected to the next process, and learned that they may have missed events.
    for (const { client } of lasts) {
      expect([client.status, client.ended]).toEqual([200, undefined]);
      const [ready, gap, event, ...others] = client.events;
      expect([ready?.event, ready?.id, JSON.parse(ready?.data ?? "").resumed]).toEqual([
        "fanwire-ready",
        undefined,
        false,
      ]);
      expect([gap?.event, gap?.id]).toEqual(["fanwire-gap", `${epoch}-0`]);
      expect(JSON.parse(gap?.data ?? "")).toEqual({
        channels: ["fanwire-common", "fanwire-inbox"],
        after: null,
        through: `${epoch}-0`,
      });
      expect([event, others]).toEqual([{ id: welcome.id, event: undefined, data: "welcome" }, []]);
    }
    // Spread: an even share of a bucket is a twentieth of the ends, and an eighth of the reconnects, which wait for 1 to 3 s.
    for (const moments of [ends, since([...cameEarly, ...lasts], "begun"), arrivals])
      expect(fullest(moments)).toBeLessThan(1 / 3);
    expect(new Set(firsts.map(({ client }) => client.retry)).size).toBeGreaterThan(CLIENTS / 2);
  }, 60_000);
});
