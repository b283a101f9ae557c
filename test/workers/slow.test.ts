import { expect, test } from "vitest";
import { gapOf, isData, seqOf } from "../support/clients/connection.ts";
import { numbers, pause, type Room, room, take, until } from "./support/room.ts";
import { late, passing } from "./support/sockets.ts";
import { publish, story } from "./support/story.ts";

// A bridged client that does not read. The socket to its Worker never pushes back, so the object counts what it sends.

const KIB = 1024;
const LARGE = 32 * KIB * KIB;
const data = numbers(1, 300).map((number) => number.padEnd(20_000));

/** Bytes that were sent to one client, if all others were sent every event. */
async function inFlight(room: Room, others: number): Promise<number> {
  const { bytes, published, log } = await room.stub.stats();
  const each = log.bytes / log.events - 256;
  return bytes - Math.round(others * published * each);
}

for (const loaded of [false, true]) {
  const when = loaded ? ", as one that comes back to a full log" : "";
  test(
    `a client that never reads${when} is sent some 256 KiB and no more, the others all of it, and it all once it reads on`,
    room({ logBytes: LARGE }, async (room) => {
      const [first = ""] = await publish(room, [data[0] ?? ""]);
      if (loaded) await publish(room, data.slice(1));
      const slow = await room.connect({ lastEventId: first });
      const quick = await room.connect({ lastEventId: first });
      const all = take(quick, data.length - 1);
      if (!loaded) await publish(room, data.slice(1));
      expect(await all).toEqual(data.slice(1));
      await pause(100);
      const sent = (await inFlight(room, 1)) + (await room.stub.stats()).log.bytes / data.length;
      expect(sent).toBeGreaterThan(128 * KIB);
      expect(sent).toBeLessThan(400 * KIB);
      expect(await room.stub.stats()).toMatchObject({ clients: 2, blocked: 1, gaps: 0 });

      expect(await take(slow, data.length - 1)).toEqual(data.slice(1));
      await publish(room, ["end"]);
      expect(await story(slow, "end")).toEqual([...data.slice(1), "end"]);
      expect(await story(quick, "end")).toEqual([...data.slice(1), "end"]);
      await until("it is not behind any more", async () => (await room.stub.stats()).blocked === 0);
    }),
  );
}

test(
  "a client that reads now and then has everything in order",
  room({ logBytes: LARGE }, async (room) => {
    const client = await room.join();
    const publishing = publish(room, data);
    for (let chunk = 0; chunk < 20; chunk++) {
      await client.read();
      await pause(10);
    }
    await publishing;
    await publish(room, ["end"]);
    expect(await story(client, "end")).toEqual([...data, "end"]);
  }),
);

test(
  "a loop of awaited publishing in the object waits for a client whose Worker is far away",
  room({ logBytes: 1_600_000 }, async (room) => {
    const client = await late(120, () => room.join());
    const all = take(client, data.length);
    await room.inside(async (object) => {
      for (const each of data) await object.broadcast(each);
    });
    expect(await all).toEqual(data);
    expect(await room.stub.stats()).toMatchObject({ gaps: 0, overruns: 0 });
  }),
);

test(
  "what a small log cannot keep for a client that does not read is told as a gap, exactly",
  room({ logBytes: 500_000 }, async (room) => {
    const slow = await room.join();
    const quick = await room.join();
    const all = take(quick, data.length);
    const ids = await publish(room, data);
    expect(await all).toEqual(data);
    await publish(room, ["end"]);
    await slow.untilData("end");
    expect(slow.control("gap").length).toBeGreaterThan(0);
    // Every position is either an event that came or in a gap, each once, in order.
    let last = 0;
    for (const event of slow.events) {
      if (isData(event)) {
        expect(seqOf(event.id)).toBe(last + 1);
        expect(event.data).toBe(data[last] ?? "end");
        last++;
      } else if (event.event === "fanwire-gap") {
        const { channels, after, through } = gapOf(event);
        expect([channels, seqOf(after)]).toEqual([["fanwire-common"], last]);
        last = seqOf(through);
      }
    }
    expect(last).toBe(ids.length + 1);
    expect(await story(quick, "end")).toEqual([...data, "end"]);
  }),
);

test(
  "a client that takes nothing for timeout × tolerance is disconnected, and the others are not",
  room({ timeout: 200, tolerance: 2 }, async (room) => {
    const slow = await room.join({ id: "slow", channel: "x" });
    const quick = await room.join({ id: "quick", channel: "x" });
    const idle = await room.join({ id: "idle" });
    const all = take(quick, 50);
    const start = Date.now();
    await publish(room, data.slice(0, 50), "x");
    await all;
    await until("it is gone", async () => (await room.stub.stats()).clients === 2, 3_000);
    expect(Date.now() - start).toBeGreaterThan(380);
    expect(await room.stub.stats()).toMatchObject({ blocked: 0, disconnects: { timeout: 1 } });
    expect(await slow.ended()).toBe("errored");
    await publish(room, ["end"]);
    expect(await story(idle, "end")).toEqual(["end"]);
    expect(await story(quick, "end")).toEqual([...data.slice(0, 50), "end"]);
  }),
);

test(
  "a client with very much unread is disconnected by its Worker, also if the object sleeps or was lost",
  room({ timeout: 400, tolerance: 1 }, async (room) => {
    const slow = await room.join();
    await publish(room, data.slice(0, 5));
    await pause(50);
    await room.abort();
    expect(await pause(600).then(() => slow.ended())).toBe("errored");
    await room.gone();
  }),
);

for (const mode of ["bridge", "direct"] as const)
  test(
    `${mode}: a client that has read something, and then takes nothing although there is more, is disconnected`,
    room({ timeout: 200, tolerance: 2, hub: { mode } }, async (room) => {
      const client = await room.join();
      await publish(room, data.slice(0, 10));
      await pause(50);
      await client.read();
      await client.read();
      await until("it is gone", async () => (await room.stub.stats()).clients === 0, 2_000);
      expect(await room.stub.stats()).toMatchObject({ blocked: 0, disconnects: { timeout: 1 } });
    }),
  );

test(
  "what waits at its Worker for a client that reads nothing is some 256 KiB, however often the object was lost",
  room({ timeout: Infinity, logBytes: LARGE }, async (room) => {
    const client = await room.join();
    for (let loss = 0; loss < 8; loss++) {
      await publish(room, data.slice(15 * loss, 15 * loss + 15));
      await pause(50);
      await room.evict("close");
      await until("it has dialled", async () => (await room.stub.stats()).clients === 1);
    }
    const all = take(client, 120);
    // The object's frames are lost, so what it reads was there already.
    const waited = await passing(
      (frame) => typeof frame === "string",
      async () => {
        await pause(150);
        return client.chunks.reduce((sum, { length }) => sum + length, 0);
      },
    );
    expect(waited).toBeLessThan(400 * KIB);
    await room.evict("close");
    expect(await all).toEqual(data.slice(0, 120));
    await publish(room, ["end"]);
    expect(await story(client, "end")).toEqual([...data.slice(0, 120), "end"]);
  }),
);

test(
  "a report of a bridged client says that it was sent, or failed, and why",
  room({ timeout: 300, tolerance: 1 }, async (room) => {
    const slow = await room.join({ id: "slow" });
    const quick = await room.join({ id: "quick" });
    const all = take(quick, 30);
    await publish(room, data.slice(0, 30));
    await all;
    const { report } = await room.hub.broadcast("end", { report: true });
    void quick.untilData("end");
    const { sent, failed } = await report;
    expect([sent, failed.map(({ clientId }) => clientId)]).toEqual([1, ["slow"]]);
    expect(["late", "timeout"]).toContain(failed[0]?.reason);
    expect(await slow.ended()).toBe("errored");
  }),
);
