import { expect, test } from "vitest";
import { numbers, pause, type TestObject, takeData, waitUntil, withObject } from "./support/test-object.ts";
import { publish, transcript, transcriptUntil } from "./support/transcript.ts";

// A deploy or a crash ends the object with its sockets. The Workers that hold the streams redial.

type Loss = readonly [how: string, lose: (object: TestObject) => Promise<void>];
const LOSSES: readonly Loss[] = [
  ["an eviction that closes the sockets", (object) => object.evict("close")],
  ["a crash", (object) => object.crash()],
];

for (const [how, lose] of LOSSES) {
  test(
    `redial after ${how}: a stream continues without a loss, a duplicate, a gap or a second fanwire-ready`,
    withObject({}, async (object) => {
      const clients = [
        await object.join({ channel: "a" }),
        await object.join({ channel: ["a", "b"] }),
        await object.join({ id: "ada", channel: "b" }),
      ];
      for (let round = 1; round <= 4; round++) {
        await publish(object, [`a${round}`], "a");
        await lose(object);
        await publish(object, [`b${round}`], "b");
        await publish(object, [`both ${round}`], ["a", "b"]);
      }
      await publish(object, ["end"]);
      const transcripts = await Promise.all(clients.map((client) => transcriptUntil(client, "end")));
      const rounds = (kinds: readonly string[]): string[] => [
        ...numbers(1, 4).flatMap((round) => kinds.map((kind) => `${kind}${round}`)),
        "end",
      ];
      expect(transcripts).toEqual([rounds(["a", "both "]), rounds(["a", "b", "both "]), rounds(["b", "both "])]);
      for (const client of clients) expect(client.control("ready")).toHaveLength(1);
      expect(await object.stub.stats()).toMatchObject({ clients: 3 });
    }),
  );

  test(
    `redial after ${how}: events that retention did not keep become one gap on the same stream`,
    withObject({ retention: { events: 2 } }, async (object) => {
      const client = await object.join({ channel: "a" });
      await publish(object, ["1"], "a");
      await client.untilData("1");
      await lose(object);
      await object.inside(async (instance) => {
        for (const data of numbers(2, 7)) await instance.broadcast(data, { channels: "a" });
      });
      await client.untilData("7");
      expect(transcript(client)).toEqual(["1", "a: (1, 5]", "6", "7"]);
    }),
  );

  test(
    `redial after ${how}: an event for one client that is published at once reaches it`,
    withObject({}, async (object) => {
      const client = await object.join({ id: "ada" });
      await lose(object);
      await object.hub.broadcastTo("ada", "for you");
      expect(await transcriptUntil(client, "for you")).toEqual(["for you"]);
    }),
  );

  test(
    `redial after ${how}: a client that left in the meantime does not come back`,
    withObject({}, async (object) => {
      const [staying, leaving] = [await object.join({ id: "staying" }), await object.join({ id: "leaving" })];
      await lose(object);
      await leaving.leave();
      await publish(object, ["end"]);
      await transcriptUntil(staying, "end");
      await pause(300);
      expect(await object.inside((instance) => instance.clients().map(({ clientId }) => clientId))).toEqual([
        "staying",
      ]);
    }),
  );

  test(
    `redial after ${how}: the stream of a client that is barred by then ends for good`,
    withObject({}, async (object) => {
      const client = await object.join({ id: "eve" });
      await lose(object);
      await object.hub.disconnect("eve", { blockFor: 60_000 });
      expect(await client.ended()).toBe("closed");
      const [end] = client.control("end");
      expect(JSON.parse(end?.data ?? "{}")).toEqual({ reason: "disconnected", reconnect: false });
      expect((await object.requestStream({ id: "eve" })).status).toBe(204);
    }),
  );
}

test(
  "redial: with a publisher at work, several crashes cause no loss, duplicate or gap",
  withObject({}, async (object) => {
    const clients = await Promise.all(numbers(1, 20).map((id) => object.join({ id })));
    const published: string[] = [];
    let isDone = false;
    const publisher = (async () => {
      for (let event = 1; !isDone; event++) {
        try {
          await object.hub.broadcast(`${event}`);
          published.push(`${event}`);
        } catch (error) {
          // An event that was on its way during the crash may be published or not.
          expect((error as { code?: string }).code).toBe("publish-outcome-unknown");
          published.push(`${event}?`);
        }
        await pause(2);
      }
    })();
    for (let loss = 0; loss < 4; loss++) {
      await pause(150);
      await object.crash();
    }
    isDone = true;
    await publisher;
    await publish(object, ["end"]);
    const transcripts = await Promise.all(clients.map((client) => transcriptUntil(client, "end")));
    const [first = []] = transcripts;
    for (const each of transcripts) expect(each).toEqual(first);
    expect(first.filter((data) => published.includes(data))).toEqual(published.filter((data) => !data.endsWith("?")));
    for (const data of first.slice(0, -1))
      expect([data, `${data}?`].some((name) => published.includes(name))).toBe(true);
    expect(new Set(first).size).toBe(first.length);
    for (const client of clients) expect(client.control("ready")).toHaveLength(1);
    await waitUntil("all clients are connected", async () => (await object.stub.stats()).clients === 20);
  }),
);

test(
  "redial after a crash: a client that does not read in the meantime receives everything later",
  withObject({}, async (object) => {
    const client = await object.join();
    const data = numbers(1, 60).map((number) => number.padEnd(10_000));
    await publish(object, data.slice(0, 30));
    await pause(50);
    await object.crash();
    await pause(300);
    await publish(object, data.slice(30));
    expect(await takeData(client, 60)).toEqual(data);
    await publish(object, ["end"]);
    expect(await transcriptUntil(client, "end")).toEqual([...data, "end"]);
  }),
);

test(
  "redial: an emptied object has another epoch, so the client receives a gap on the same stream",
  withObject({}, async (object) => {
    const client = await object.join({ channel: "a" });
    await publish(object, ["1", "2"], "a");
    await client.untilData("2");
    await object.evict("close");
    await object.inside((_, { storage }) => storage.deleteAll());
    await object.evict("close");
    await waitUntil("it is connected again", async () => (await object.stub.stats()).clients === 1);
    await publish(object, ["again"], "a");
    const parts = await transcriptUntil(client, "again");
    expect(parts).toEqual(["1", "2", "fanwire-common fanwire-inbox a: (?, 0]", "again"]);
    expect(client.control("ready")).toHaveLength(1);
    // From here on the client resumes with the new epoch.
    await object.evict("close");
    await publish(object, ["end"], "a");
    expect(await transcriptUntil(client, "end")).toEqual([...parts, "end"]);
  }),
);
