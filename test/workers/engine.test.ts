import { expect, test } from "vitest";
import { seqOf } from "../support/clients/connection.ts";
import { codeOf } from "../support/test-broker.ts";
import { keptIn, numbers, type TestObject, withClockAhead, withObject } from "./support/test-object.ts";
import { epochOf, publish, replay, transcriptUntil } from "./support/transcript.ts";

// The state of an object that outlives its instance.

type Restart = readonly [how: string, restart: (object: TestObject) => Promise<void>];
const RESTARTS: readonly Restart[] = [
  ["an eviction", (object) => object.evict()],
  ["an eviction that closes the sockets", (object) => object.evict("close")],
  ["a crash", (object) => object.crash()],
];

for (const [how, restart] of RESTARTS) {
  test(
    `restart by ${how}: the epoch stays, positions continue, and a client resumes without a gap`,
    withObject({}, async (object) => {
      const [first = ""] = await publish(object, ["1", "2", "3"], "a");
      await restart(object);
      expect((await object.stub.stats()).published).toBe(0);
      const [fourth = ""] = await publish(object, ["4"], "a");
      expect([epochOf(fourth), seqOf(fourth)]).toEqual([epochOf(first), 4]);
      await restart(object);
      expect(await replay(object, { channel: "a", lastEventId: first })).toEqual(["2", "3", "4"]);
      await restart(object);
      const ready = await (await object.connect({ channel: "a", lastEventId: fourth })).next();
      expect(JSON.parse(ready.data)).toMatchObject({ resumed: true });
    }),
  );

  test(
    `restart by ${how}: no position is assigned twice, even if all events were dropped`,
    withObject({ retention: { age: 1_000 } }, async (object) => {
      const client = await object.join();
      const [first = "", second = ""] = await publish(object, ["1", "2", "3"]);
      await client.untilData("3");
      await withClockAhead(2_000, () => object.runAlarm());
      expect(await object.rowCount("events")).toBe(0);
      await restart(object);
      const [fourth = ""] = await publish(object, ["4"]);
      expect([epochOf(fourth), seqOf(fourth)]).toEqual([epochOf(first), 4]);
      expect(await transcriptUntil(client, "4")).toEqual(["1", "2", "3", "4"]);
      const late = await object.connect({ lastEventId: second });
      expect(await transcriptUntil(late, "4")).toEqual(["fanwire-common: (2, 3]", "4"]);
    }),
  );

  test(
    `restart by ${how}: retention.events holds per channel, and the gap of a resuming client is exact`,
    withObject({ retention: { events: 3 } }, async (object) => {
      const [first = "", second = ""] = await publish(object, numbers(1, 5, "a"), "a");
      await publish(object, numbers(1, 2, "b"), "b");
      await restart(object);
      const replayAfter = (lastEventId: string) => replay(object, { channel: ["a", "b"], lastEventId });
      expect(await replayAfter(first)).toEqual(["a: (1, 2]", "a3", "a4", "a5", "b1", "b2"]);
      await restart(object);
      await publish(object, ["a6"], "a");
      await restart(object);
      expect(await replayAfter(first)).toEqual(["a: (1, 3]", "a4", "a5", "b1", "b2", "a6"]);
      expect(await replayAfter(second)).toEqual(["a: (2, 3]", "a4", "a5", "b1", "b2", "a6"]);
      expect(await replay(object, { channel: "b", lastEventId: first })).toEqual(["b1", "b2"]);
    }),
  );

  test(
    `restart by ${how}: retention.bytes holds, and the gap is exact`,
    withObject({ retention: { bytes: 2_500 } }, async (object) => {
      const data = numbers(1, 4).map((digit) => digit.repeat(1_000));
      const [first = "", second = ""] = await publish(object, data);
      await restart(object);
      expect(await replay(object, { lastEventId: first })).toEqual(["fanwire-common: (1, 2]", ...data.slice(2)]);
      expect(await replay(object, { lastEventId: second })).toEqual(data.slice(2));
    }),
  );

  test(
    `restart by ${how}: retention.age counts from the publish, not from the start of the instance`,
    withObject({ retention: { age: 10_000 } }, async (object) => {
      const [first = ""] = await publish(object, ["old", "also old"]);
      await withClockAhead(8_000, () => publish(object, ["young"]));
      await restart(object);
      await withClockAhead(12_000, async () => {
        expect(await replay(object, { lastEventId: first })).toEqual(["fanwire-common: (1, 2]", "young"]);
      });
    }),
  );

  test(
    `restart by ${how}: each channel keeps what the option channels says, from the publish on`,
    withObject({ retention: { age: 10_000 }, channels: keptIn }, async (object) => {
      const [first = ""] = await publish(object, numbers(1, 3, "s"), "state");
      await publish(object, numbers(1, 2, "c"), "chat");
      await publish(object, ["t1"], "typing");
      await publish(object, ["o1"], "other");
      const channel = ["state", "chat", "typing", "other"];
      const lastEventId = first.replace(/\d+$/, "0");
      const young = await replay(object, { channel, lastEventId });
      expect(young.filter((line) => !line.includes(":"))).toEqual(["s3", "c1", "c2", "o1"]);
      await restart(object);
      expect(await replay(object, { channel, lastEventId })).toEqual(young);
      await withClockAhead(12_000, async () => {
        const old = await replay(object, { channel, lastEventId });
        expect(old.filter((line) => !line.includes(":"))).toEqual(["c1", "c2"]);
        const gaps = old.filter((line) => line.includes(":")).map((line) => line.slice(0, line.indexOf(":")));
        expect([...new Set(gaps)].sort()).toEqual(["other", "state", "typing"]);
        await restart(object);
        expect(await replay(object, { channel, lastEventId })).toEqual(old);
      });
    }),
  );

  test(
    `restart by ${how}: an event of several channels is kept as long as one of them keeps it, and is read once`,
    withObject({ retention: { events: 2 } }, async (object) => {
      const [both = ""] = await publish(object, ["both"], ["a", "b", "c"]);
      await publish(object, ["a1", "a2", "a3"], "a");
      const lastEventId = `${epochOf(both)}-0`;
      const replays = async () => [
        await replay(object, { channel: "a", lastEventId }),
        await replay(object, { channel: "b", lastEventId }),
        await replay(object, { channel: ["a", "b", "c"], lastEventId }),
      ];
      const before = await replays();
      // The gap is announced at the reader's position, and again at its end.
      const ofA = ["a: (0, 2]", "both", "a: (0, 2]", "a2", "a3"];
      expect(before).toEqual([ofA, ["both"], ofA]);
      await restart(object);
      expect(await replays()).toEqual(before);
      // From here on b does not keep the event, and c still does.
      await publish(object, ["b1", "b2"], "b");
      await restart(object);
      expect(await replay(object, { channel: "b", lastEventId })).toEqual(["both", "b1", "b2"]);
      await publish(object, ["c1", "c2"], "c");
      await restart(object);
      expect(await replay(object, { channel: "b", lastEventId })).toEqual(["b: (0, 1]", "b1", "b2"]);
    }),
  );

  test(
    `restart by ${how}: an idempotency key is known, so the same event is not published again and another one is refused`,
    withObject({}, async (object) => {
      const { hub } = object;
      const { id } = await hub.broadcast("once", { channels: ["a", "b"], idempotencyKey: "k" });
      await restart(object);
      expect((await hub.broadcast("once", { channels: ["b", "a"], idempotencyKey: "k" })).id).toBe(id);
      expect(await codeOf(hub.broadcast("other", { channels: ["a", "b"], idempotencyKey: "k" }))).toBe("key-reused");
      expect(await codeOf(hub.broadcast("once", { idempotencyKey: "k" }))).toBe("key-reused");
      expect(await object.rowCount("events")).toBe(1);
      expect(seqOf((await hub.broadcast("another", { idempotencyKey: "l" })).id)).toBe(2);
      await restart(object);
      await withClockAhead(300_001, async () =>
        expect(seqOf((await hub.broadcast("once", { idempotencyKey: "k" })).id)).toBe(3),
      );
    }),
  );

  test(
    `restart by ${how}: the text of an event is unchanged, even where SQLite would store other characters`,
    withObject({}, async (object) => {
      const client = await object.join({ channel: "a" });
      const { lastEventId = "" } = client;
      await publish(object, ["a\0b", "\uFEFFx"], "a");
      const publishSurrogate = () => object.hub.broadcast("\uD800y", { channels: "a", idempotencyKey: "k" });
      const { id } = await publishSurrogate();
      const texts = ["a\0b", "\uFEFFx", "\uFFFDy"];
      expect(await transcriptUntil(client, "\uFFFDy")).toEqual(texts);
      await restart(object);
      expect(await replay(object, { channel: "a", lastEventId })).toEqual(texts);
      expect((await publishSurrogate()).id).toBe(id);
    }),
  );

  test(
    `restart by ${how}: an id barred with blockFor stays barred, and no longer than that`,
    withObject({}, async (object) => {
      expect(await object.hub.disconnect("eve", { blockFor: 60_000 })).toEqual({ clients: 0 });
      await restart(object);
      expect((await object.requestStream({ id: "eve" })).status).toBe(204);
      await object.join({ id: "adam" });
      await restart(object);
      await withClockAhead(60_001, async () => {
        await object.join({ id: "eve" });
      });
    }),
  );

  test(
    `restart by ${how}: a lingering id still accepts events, and the client receives them`,
    withObject({ inboxLinger: 60_000 }, async (object) => {
      const client = await object.join({ id: "ada" });
      const { lastEventId = "" } = client;
      await client.leave();
      await object.untilNoClients();
      await restart(object);
      expect(await object.hub.broadcastTo("ada", "while away")).toMatchObject({ clients: 0 });
      await restart(object);
      expect(await transcriptUntil(await object.connect({ id: "ada", lastEventId }), "while away")).toEqual([
        "while away",
      ]);
      expect(await codeOf(object.hub.broadcastTo("bob", "to nobody"))).toBe("unknown-client");
    }),
  );

  test(
    `restart by ${how}: an id does not linger longer than inboxLinger`,
    withObject({ inboxLinger: 60_000 }, async (object) => {
      const client = await object.join({ id: "ada" });
      await client.leave();
      await object.untilNoClients();
      await restart(object);
      await withClockAhead(60_001, async () => {
        expect(await codeOf(object.hub.broadcastTo("ada", "too late"))).toBe("unknown-client");
      });
    }),
  );
}
