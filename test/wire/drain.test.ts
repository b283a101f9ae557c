import { afterEach, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { type Platform, type Server, Stage, startServer } from "../support/servers/server.ts";

// A deployment, as 1,000 browsers live through it: the process closes its broker over five seconds and ends, and another one takes
// its address. The memory engine's log dies with the first, so what they are owed by the second is to be told.

const CLIENTS = 1_000;
const OVER = 5_000;
const RETRY = 2_000;
const BUCKET = 250;

/** One connection of a client, from the attempt to its end. */
interface Visit {
  readonly client: SocketClient;
  readonly begun: number;
  ended: number;
}

/** Behaves as an EventSource: when its stream has ended it waits for as long as it was told, and comes back with its last id. */
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
      await client.end();
      visit.ended = performance.now();
      client.leave();
      this.#retry = client.retry ?? this.#retry;
      this.#lastEventId = client.lastEventId ?? this.#lastEventId;
      // A status other than 200 ends it for good; no connection at all does not.
      if (client.status !== 200 && client.status !== 0) return;
      await new Promise((resolve) => setTimeout(resolve, this.#retry));
    }
  }
}

/** How many of these moments were in each quarter of a second. */
function countsOf(moments: readonly number[]): number[] {
  const counts = Array.from({ length: 1 + Math.floor(Math.max(0, ...moments) / BUCKET) }, () => 0);
  for (const moment of moments) counts[Math.floor(moment / BUCKET)] = (counts[Math.floor(moment / BUCKET)] ?? 0) + 1;
  return counts;
}

/** The share of the fullest quarter of a second. */
const fullest = (moments: readonly number[]): number => Math.max(...countsOf(moments)) / moments.length;

/** Bars, one below the other; several rows of moments are stacked, each with its own mark. */
function histogram(title: string, rows: Readonly<Record<string, readonly number[]>>): string {
  const counted = Object.entries(rows).map(([mark, moments]) => [mark, countsOf(moments)] as const);
  const length = Math.max(...counted.map(([, counts]) => counts.length));
  const lines = Array.from({ length }, (_, index) => {
    const bars = counted.map(([mark, counts]) => mark.repeat(Math.ceil((counts[index] ?? 0) / 3)));
    const sum = counted.reduce((total, [, counts]) => total + (counts[index] ?? 0), 0);
    return `${String(index * BUCKET).padStart(6)} ms ${bars.join("")} ${sum || ""}`;
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

  test("close({ spreadOver }): nobody's stream ends without a word, all come back to the next process, and not at once", async () => {
    const first = await startServer(platform);
    servers.push(first);
    const stage = await first.stage({ retry: RETRY });
    for (let n = 0; n < CLIENTS; n++) clients.push(new Returning(first.url + stage.path(`connect?id=c${n}`)));
    await Promise.all(clients.map(({ client }) => client.ready()));
    expect((await stage.state()).stats.clients).toBe(CLIENTS);
    await stage.publish("one");
    await stage.tell("flood", { count: 20, bytes: 100 });

    const from = performance.now();
    await stage.tell("close", { spreadOver: OVER, first: "the last word" });
    const closed = performance.now() - from;
    await Promise.all(clients.map(({ visits }) => visits[0]?.client.end()));
    await first.retire();
    const second = await startServer(platform, { at: first.port });
    servers.push(second);
    const next = new Stage(second, stage.name);
    // Before its first client comes the new process knows of no stage.
    await next.until((state) => "stats" in state && state.stats.clients === CLIENTS);
    const welcome = (await (await next.publish("welcome")).json()) as { id: string };
    await Promise.all(clients.map(({ client }) => client.until(({ data }) => data.length > 0)));
    const [epoch] = welcome.id.split("-");

    const firsts = clients.map((client) => client.visits[0] as Visit);
    const lasts = clients.map((client) => client.visits.at(-1) as Visit);
    const between = clients.flatMap((client) => client.visits.slice(1, -1));
    const told = between.filter(({ client }) => client.status === 200);
    const refused = between.filter(({ client }) => client.status === 0);
    const since = (visits: readonly Visit[], moment: "begun" | "ended"): number[] =>
      visits.map((visit) => visit[moment] - from);
    const ends = since(firsts, "ended");
    const arrivals = since(lasts, "begun");
    console.log(
      `${CLIENTS} clients on ${platform}, close({ over: ${OVER} }) resolved after ${Math.round(closed)} ms`,
      histogram("\nends", { "█": ends }),
      histogram(
        `\nreconnects: ░ ${told.length} told to come back, x ${refused.length} refused, █ at the next process`,
        {
          "░": since(told, "begun"),
          x: since(refused, "begun"),
          "█": arrivals,
        },
      ),
    );

    // What was published before the close was received before the end, by all.
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
    // Every stream that there was, in the drain as well, ended with its reason and a time to come back.
    for (const { client } of [...firsts, ...told]) {
      expect([client.status, client.ended, endOf(client)]).toEqual([200, "complete", CLOSING]);
      expect(client.retry).toBeGreaterThanOrEqual(RETRY / 2);
      expect(client.retry).toBeLessThanOrEqual(1.5 * RETRY);
    }
    // Whoever came too early was told so, and nothing else; or nobody listened. Nobody got a status that ends an EventSource.
    expect(told.length).toBeGreaterThan(0);
    for (const { client } of told) expect(client.events).toHaveLength(1);
    expect(told.length + refused.length).toBe(between.length);
    // All are at the next process, and know what they have missed.
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
    // Spread: the even share of a bucket is a twentieth of the ends, and an eighth of what waits for two seconds more or less.
    for (const moments of [ends, since([...told, ...lasts], "begun"), arrivals])
      expect(fullest(moments)).toBeLessThan(1 / 3);
    expect(new Set(firsts.map(({ client }) => client.retry)).size).toBeGreaterThan(CLIENTS / 2);
  }, 60_000);
});
