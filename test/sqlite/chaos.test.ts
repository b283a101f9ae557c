// A server that is killed again and again, at random moments, while clients read and a publisher publishes with keys. Each life is on another
// runtime, over the same file. Within retention every client receives every event once, in order, and no gap.
import { describe, expect, inject, test } from "vitest";
import { Random } from "../support/random.ts";
import { type Life, Lives, RUNTIMES } from "./support/life.ts";
import { StreamReader } from "./support/stream-reader.ts";

const first = Number.parseInt(inject("seed") || "1", 10);
const SEEDS = Number(inject("histories") || 50);
const EVENTS = 60;
const KILLS = 3;
/** The channels of each client. */
const CLIENTS = [["a"], ["b"], ["a", "b"], ["c"]];

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function runSeed(seed: number): Promise<void> {
  const random = new Random(seed);
  const lives = new Lives();
  let life: Life = await lives.start(random.pick(RUNTIMES));
  const { url } = life;
  const published: { id: string; data: string; channels: readonly string[] }[] = [];
  const readers = CLIENTS.map(
    (channels, index) =>
      new StreamReader(`${url}/connect?id=client${index}&${channels.map((name) => `channel=${name}`).join("&")}`),
  );
  try {
    for (const reader of readers) await reader.until(() => reader.lastEventId !== "");

    /** Publishes until the broker has answered. */
    async function publish(data: string, query: string, channels: readonly string[]): Promise<void> {
      for (;;) {
        const answer = await life.publish(data, query, { "idempotency-key": data }).catch(() => undefined);
        if (answer?.status === 200) {
          published.push({ id: answer.id ?? "", data, channels });
          return;
        }
        await pause(5);
      }
    }

    let isOver = false;
    const killing = (async () => {
      for (let kill = 0; kill < KILLS; kill++) {
        await pause(random.integer(5, 120));
        await life.kill();
        life = await lives.start(random.pick(RUNTIMES));
      }
      isOver = true;
    })();
    // Two at a time, so that one is under way when the other has been answered.
    let count = 0;
    const publishing = [0, 1].map(async () => {
      while (!isOver || count < EVENTS) {
        const data = `${seed}-${count++}`;
        const index = random.integer(0, 4);
        if (index === 4) await publish(data, "?id=client0", ["inbox"]);
        else {
          const channels = [["a"], ["b"], ["a", "b"], ["c"]][index] ?? [];
          await publish(data, `?${channels.map((name) => `channel=${name}`).join("&")}`, channels);
        }
        await pause(random.integer(0, 10));
      }
    });
    await Promise.all([killing, ...publishing]);
    await publish("end", "", ["common"]);
    for (const reader of readers) await reader.untilData("end");

    const seqOf = ({ id }: { id: string }): number => Number(id.slice(id.lastIndexOf("-") + 1));
    const inOrder = published.toSorted((x, y) => seqOf(x) - seqOf(y));
    expect(new Set(inOrder.map(({ id }) => id.replace(/-\d+$/, ""))).size).toBe(1);
    expect(new Set(inOrder.map(seqOf)).size).toBe(inOrder.length);
    for (const [index, reader] of readers.entries()) {
      const own = [...(CLIENTS[index] ?? []), "common", ...(index === 0 ? ["inbox"] : [])];
      const due = inOrder.filter(({ channels }) => channels.some((name) => own.includes(name)));
      expect(reader.gaps).toEqual([]);
      expect(reader.events.map(({ id, data }) => ({ id, data }))).toEqual(due.map(({ id, data }) => ({ id, data })));
    }
  } finally {
    for (const reader of readers) await reader.close();
    await lives.end();
  }
}

describe.concurrent("chaos", () => {
  test.each(Array.from({ length: SEEDS }, (_, index) => first + index))(
    "seed %i: a server that is killed three times loses nothing, repeats nothing, and sends no gap",
    { timeout: 120_000 },
    (seed) => runSeed(seed),
  );
});
