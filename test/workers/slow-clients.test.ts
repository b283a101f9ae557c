import { expect, test } from "vitest";
import { gapOf, isData, seqOf } from "../support/clients/connection.ts";
import { interceptFrames, withLatency } from "./support/sockets.ts";
import { numbers, pause, type TestObject, takeData, waitUntil, withObject } from "./support/test-object.ts";
import { publish, transcriptUntil } from "./support/transcript.ts";

// Clients of a Worker that do not read. A WebSocket has no backpressure, so the object counts the bytes it sends.

const KIB = 1024;
const LARGE = 32 * KIB * KIB;
const data = numbers(1, 300).map((number) => number.padEnd(20_000));

/** Returns the bytes sent to one client, if `others` clients were sent every event. */
async function bytesSentToOne(object: TestObject, others: number): Promise<number> {
  const { bytes, published, log } = await object.stub.stats();
  const each = log.bytes / log.events - 256;
  return bytes - Math.round(others * published * each);
}

for (const isLogFull of [false, true]) {
  const when = isLogFull ? " and comes back to a full log" : "";
  test(
    `backpressure: a client that never reads${when} is sent about 256 KiB; the others receive everything, and so does it once it reads`,
    withObject({ logBytes: LARGE }, async (object) => {
      const [first = ""] = await publish(object, [data[0] ?? ""]);
      if (isLogFull) await publish(object, data.slice(1));
      const slow = await object.connect({ lastEventId: first });
      const quick = await object.connect({ lastEventId: first });
      const all = takeData(quick, data.length - 1);
      if (!isLogFull) await publish(object, data.slice(1));
      expect(await all).toEqual(data.slice(1));
      await waitUntil("it is blocked", async () => (await object.stub.stats()).blocked === 1);
      await pause(100);
      const sent = (await bytesSentToOne(object, 1)) + (await object.stub.stats()).log.bytes / data.length;
      expect(sent).toBeGreaterThan(128 * KIB);
      expect(sent).toBeLessThan(400 * KIB);
      expect(await object.stub.stats()).toMatchObject({ clients: 2, blocked: 1, gaps: 0 });

      expect(await takeData(slow, data.length - 1)).toEqual(data.slice(1));
      await publish(object, ["end"]);
      expect(await transcriptUntil(slow, "end")).toEqual([...data.slice(1), "end"]);
      expect(await transcriptUntil(quick, "end")).toEqual([...data.slice(1), "end"]);
      await waitUntil("no client is blocked", async () => (await object.stub.stats()).blocked === 0);
    }),
  );
}

test(
  "backpressure: a client that reads now and then receives everything in order",
  withObject({ logBytes: LARGE }, async (object) => {
    const client = await object.join();
    const publishing = publish(object, data);
    for (let chunk = 0; chunk < 20; chunk++) {
      await client.read();
      await pause(10);
    }
    await publishing;
    await publish(object, ["end"]);
    expect(await transcriptUntil(client, "end")).toEqual([...data, "end"]);
  }),
);

test(
  "backpressure: a loop of awaited broadcasts in the object waits for a client with a distant Worker",
  withObject({ logBytes: 1_600_000 }, async (object) => {
    const client = await withLatency(120, () => object.join());
    const all = takeData(client, data.length);
    await object.inside(async (instance) => {
      for (const each of data) await instance.broadcast(each);
    });
    expect(await all).toEqual(data);
    expect(await object.stub.stats()).toMatchObject({ gaps: 0, overruns: 0 });
  }),
);

test(
  "overrun: events that a small log cannot keep for a blocked client are in an exact gap",
  withObject({ logBytes: 500_000 }, async (object) => {
    const slow = await object.join();
    const quick = await object.join();
    const all = takeData(quick, data.length);
    const ids = await publish(object, data);
    expect(await all).toEqual(data);
    await publish(object, ["end"]);
    await slow.untilData("end");
    expect(slow.control("gap").length).toBeGreaterThan(0);
    // Every position is once either a received event or in a gap, in order.
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
    expect(await transcriptUntil(quick, "end")).toEqual([...data, "end"]);
  }),
);

test(
  "timeout: a client that reads nothing for timeout × tolerance is disconnected, and the others are not",
  withObject({ timeout: 200, tolerance: 2 }, async (object) => {
    const slow = await object.join({ id: "slow", channel: "x" });
    const quick = await object.join({ id: "quick", channel: "x" });
    const idle = await object.join({ id: "idle" });
    const all = takeData(quick, 50);
    const start = Date.now();
    await publish(object, data.slice(0, 50), "x");
    await all;
    await waitUntil("it is removed", async () => (await object.stub.stats()).clients === 2);
    expect(Date.now() - start).toBeGreaterThan(380);
    expect(await object.stub.stats()).toMatchObject({ blocked: 0, disconnects: { timeout: 1 } });
    expect(await slow.ended()).toBe("closed");
    await publish(object, ["end"]);
    expect(await transcriptUntil(idle, "end")).toEqual(["end"]);
    expect(await transcriptUntil(quick, "end")).toEqual([...data.slice(0, 50), "end"]);
  }),
);

test(
  "timeout: the Worker disconnects a client that reads nothing, even after the object was lost",
  withObject({ timeout: 400, tolerance: 1 }, async (object) => {
    const slow = await object.join();
    await publish(object, data.slice(0, 5));
    await pause(50);
    await object.crash();
    expect(await pause(600).then(() => slow.ended())).toBe("closed");
    await object.untilNoClients();
  }),
);

for (const mode of ["bridge", "direct"] as const)
  test(
    `${mode}: timeout disconnects a client that read something and then stopped`,
    withObject({ timeout: 200, tolerance: 2, hub: { mode } }, async (object) => {
      const client = await object.join();
      await publish(object, data.slice(0, 10));
      await pause(50);
      await client.read();
      await client.read();
      await waitUntil("it is removed", async () => (await object.stub.stats()).clients === 0);
      expect(await object.stub.stats()).toMatchObject({ blocked: 0, disconnects: { timeout: 1 } });
    }),
  );

test(
  "backpressure: about 256 KiB wait in the Worker for a blocked client, however often the object was lost",
  withObject({ timeout: Infinity, logBytes: LARGE }, async (object) => {
    const client = await object.join();
    for (let loss = 0; loss < 8; loss++) {
      await publish(object, data.slice(15 * loss, 15 * loss + 15));
      await pause(50);
      await object.evict("close");
      await waitUntil("it has redialed", async () => (await object.stub.stats()).clients === 1);
    }
    const all = takeData(client, 120);
    // The object's frames are dropped here, so everything the client reads was already in the Worker.
    const bytesWaiting = await interceptFrames(
      (frame) => typeof frame === "string",
      async () => {
        await pause(150);
        return client.chunks.reduce((sum, { length }) => sum + length, 0);
      },
    );
    expect(bytesWaiting).toBeLessThan(400 * KIB);
    await object.evict("close");
    expect(await all).toEqual(data.slice(0, 120));
    await publish(object, ["end"]);
    expect(await transcriptUntil(client, "end")).toEqual([...data.slice(0, 120), "end"]);
  }),
);

test(
  "report: of a client of a Worker, it says that the event was sent or why not",
  withObject({ timeout: 300, tolerance: 1 }, async (object) => {
    const slow = await object.join({ id: "slow" });
    const quick = await object.join({ id: "quick" });
    const all = takeData(quick, 30);
    await publish(object, data.slice(0, 30));
    await all;
    const { report } = await object.hub.broadcast("end", { report: true });
    void quick.untilData("end");
    const { sent, failed } = await report;
    expect([sent, failed.map(({ clientId }) => clientId)]).toEqual([1, ["slow"]]);
    expect(["late", "timeout"]).toContain(failed[0]?.reason);
    expect(await slow.ended()).toBe("closed");
  }),
);
