// Many clients that read the history of the same channels from Redis, at an instance that holds none of it.
import { describe, expect, test } from "vitest";
import type { Broker } from "../../src/index.ts";
import { needsRedis } from "../support/servers/redis.ts";
import { useRedis } from "./support/use-redis.ts";

const CHANNELS = Array.from({ length: 20 }, (_, index) => `c${index}`);
const EVENTS = 6_000;

describe("clients that read history at a cold instance", needsRedis, () => {
  const redis = useRedis();
  const open = (): Broker => redis.open({}, { onError: () => undefined });

  /** Reads all events of a client's channels. Returns their data. */
  async function readAll(
    broker: Broker,
    channels: readonly string[],
    lastEventId?: string,
  ): Promise<readonly string[]> {
    const url = new URL("http://broker/connect?from=earliest");
    for (const channel of channels) url.searchParams.append("channel", channel);
    if (lastEventId) url.searchParams.set("lastEventId", lastEventId);
    const response = await broker.fetch(new Request(url, { headers: { accept: "text/event-stream" } }));
    const data: string[] = [];
    let text = "";
    for await (const chunk of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
      text += chunk;
      const lines = text.split("\n");
      text = lines.pop() as string;
      for (const line of lines) if (/^data: \d+$/.test(line)) data.push(line.slice(6));
      if (data.at(-1) === String(EVENTS)) break;
    }
    return data;
  }

  async function looksOf<T>(run: () => Promise<T>): Promise<{ looks: number; result: T }> {
    await redis.server.command("CONFIG", "RESETSTAT");
    const result = await run();
    const stats = (await redis.server.command("INFO", "commandstats")) as string;
    return { looks: Number(/cmdstat_zrange:calls=(\d+)/.exec(stats)?.[1]), result };
  }

  test("50 clients with different channels and positions cost about as much as one", async () => {
    const writer = open();
    const ids: string[] = [];
    for (let n = 1; n <= EVENTS; ) {
      const all = [];
      for (; all.length < 1_000; n++)
        all.push(
          writer.broadcast(String(n), { channels: [CHANNELS[n % 20] as string, ...(n === EVENTS ? CHANNELS : [])] }),
        );
      ids.push(...(await Promise.all(all)).map(({ id }) => id));
    }
    const one = await looksOf(() => readAll(open(), CHANNELS));
    expect(one.result).toEqual(Array.from({ length: EVENTS }, (_, index) => String(index + 1)));
    const cold = open();
    const many = await looksOf(() =>
      Promise.all(
        Array.from({ length: 50 }, (_, index) => {
          const channels = CHANNELS.filter((_, channel) => channel !== index % 20);
          return readAll(cold, channels, index % 3 === 0 ? undefined : ids[index * 37]);
        }),
      ),
    );
    for (const [index, data] of many.result.entries()) {
      const first = index % 3 === 0 ? 0 : index * 37 + 1;
      const expected = Array.from({ length: EVENTS - first }, (_, n) => first + n + 1).filter(
        (n) => n % 20 !== index % 20 || n === EVENTS,
      );
      expect(data).toEqual(expected.map(String));
    }
    // Each client asks for the bounds of its channels, with one or two looks at each. The pages are shared.
    expect(many.looks - 50 * 1.5 * 20).toBeLessThan(one.looks * 2);
  });
});
