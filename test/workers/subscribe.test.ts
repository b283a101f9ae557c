import { expect, test } from "vitest";
import { type Connection, changesOf, secretOf } from "../support/clients/connection.ts";
import { codeOf } from "../support/test-broker.ts";
import { type TestObject, withObject } from "./support/test-object.ts";
import { publish, transcriptUntil } from "./support/transcript.ts";

// The channels of an open stream change, an event is for one connection or is not stored: in both modes, and over the loss of the object.

const MODES = ["bridge", "direct"] as const;

/** Returns the channels of a stream after each of its changes. */
const channelsOf = (client: Connection): unknown[] => changesOf(client).map(({ channels }) => channels);

const post = async (object: TestObject, path: string, fields: Record<string, string>): Promise<unknown[]> => {
  const init = { method: "POST", body: new URLSearchParams(fields) };
  const response = await object.hub.fetch(new Request(`https://fanwire.test/${path}`, init));
  return [response.status, ((await response.json()) as { code?: string }).code];
};

for (const mode of MODES) {
  test(
    `${mode}: subscribe() and unsubscribe() through hub() and on the stub change an open stream, and it is told`,
    withObject({ hub: { mode } }, async (object) => {
      const client = await object.join({ id: "ada", channel: "a" });
      const other = await object.join({ id: "bob" });
      expect(await object.hub.subscribe("ada", ["b", "c"])).toEqual({
        clients: 1,
        position: expect.stringMatching(/-0$/),
      });
      await publish(object, ["1"], "b");
      expect(await object.stub.unsubscribe("ada", "b", { reason: "kicked" })).toEqual({ clients: 1 });
      await publish(object, ["2"], "b");
      await publish(object, ["3"], "c");
      await publish(object, ["end"]);
      expect(await transcriptUntil(client, "end")).toEqual(["1", "3", "end"]);
      expect(await transcriptUntil(other, "end")).toEqual(["end"]);
      expect(changesOf(client)).toEqual([
        { channels: ["a", "b", "c"], added: ["b", "c"], removed: [] },
        { channels: ["a", "c"], added: [], removed: ["b"], reason: "kicked" },
      ]);
      expect(
        await codeOf(
          object.hub.subscribe(
            "ada",
            Array.from({ length: 101 }, (_, n) => `${n}`),
          ),
        ),
      ).toBe("bad-channel");
    }),
  );

  test(
    `${mode}: POST /subscribe with the stream's secret, also after the object was evicted`,
    withObject({ hub: { mode } }, async (object) => {
      const client = await object.join({ id: "ada" });
      const secret = secretOf(client);
      expect(await post(object, "subscribe", { secret, channel: "a" })).toEqual([200, undefined]);
      if (mode === "bridge") await object.evict();
      expect(await post(object, "subscribe", { secret, channel: "b" })).toEqual([200, undefined]);
      expect(await post(object, "unsubscribe", { secret, channel: "a" })).toEqual([200, undefined]);
      await publish(object, ["1"], "a");
      await publish(object, ["end"], "b");
      expect(await transcriptUntil(client, "end")).toEqual(["end"]);
      expect(channelsOf(client)).toEqual([["a"], ["a", "b"], ["b"]]);
      expect(await post(object, "subscribe", { secret: "0".repeat(26), channel: "a" })).toEqual([
        404,
        "unknown-stream",
      ]);
    }),
  );

  test(
    `${mode}: ephemeral events and events for one connection, in order with the others`,
    withObject({ hub: { mode } }, async (object) => {
      const tabs = [await object.join({ id: "ada", channel: "a" }), await object.join({ id: "ada", channel: "a" })];
      const [, second] = await object.inside((instance) => instance.clients().map(({ connectionId }) => connectionId));
      await publish(object, ["1"], "a");
      expect(await object.hub.broadcast("2", { channels: "a", ephemeral: true })).toEqual({ clients: 2 });
      expect(await object.hub.broadcastTo("ada", "3", { connectionId: second as string })).toEqual({ clients: 1 });
      await publish(object, ["4"], "a");
      expect(await transcriptUntil(tabs[0] as Connection, "4")).toEqual(["1", "2", "4"]);
      expect(await transcriptUntil(tabs[1] as Connection, "4")).toEqual(["1", "2", "3", "4"]);
      expect(await object.rowCount("events")).toBe(2);
      expect(await codeOf(object.hub.broadcastTo("ada", "x", { connectionId: "none" }))).toBe("unknown-client");
    }),
  );
}

const LOSSES: readonly (readonly [how: string, lose: (object: TestObject) => Promise<void>])[] = [
  ["hibernation", (object) => object.evict()],
  ["an eviction that closes the sockets", (object) => object.evict("close")],
  ["a crash", (object) => object.crash()],
];

for (const [how, lose] of LOSSES) {
  test(
    `bridge: changed channels survive ${how}, without a loss, and the page knows them, again and again`,
    withObject({}, async (object) => {
      const client = await object.join({ id: "ada", channel: ["old", "left"] });
      const secret = secretOf(client);
      await object.hub.subscribe("ada", "new");
      await object.hub.unsubscribe("ada", "left");
      for (let round = 1; round <= 3; round++) {
        await lose(object);
        await publish(object, [`left ${round}`], "left");
        await publish(object, [`new ${round}`], "new");
        await publish(object, [`old ${round}`], "old");
        await client.untilData(`old ${round}`);
      }
      expect(client.data).toEqual([1, 2, 3].flatMap((round) => [`new ${round}`, `old ${round}`]));
      expect(await post(object, "subscribe", { secret, channel: "late" })).toEqual([200, undefined]);
      await lose(object);
      await publish(object, ["end"], "late");
      await client.untilData("end");
      // The Worker's new socket brings what the client missed first.
      await publish(object, ["after"], "late");
      await client.untilData("after");
      expect(channelsOf(client).at(-1)).toEqual(["old", "new", "late"]);
      expect(client.control("gap")).toEqual([]);
    }),
  );
}

test(
  "bridge: a change is not lost if the object is lost before the Worker hears of it",
  withObject({}, async (object) => {
    const client = await object.join({ id: "ada" });
    // The socket is gone before its messages are read: both happen in one turn of the object.
    await object.inside(async (instance, ctx) => {
      await instance.subscribe("ada", "new");
      for (const socket of ctx.getWebSockets()) socket.close(1012, "lost");
    });
    await publish(object, ["1"], "new");
    await client.untilData("1");
    expect(client.control("gap")).toEqual([]);
  }),
);

test(
  "bridge: a client that leaves for good is forgotten with its changed channels",
  withObject({}, async (object) => {
    const client = await object.join({ id: "ada" });
    await object.hub.subscribe("ada", "new");
    await client.leave();
    await object.untilNoClients();
    expect((await object.sql("SELECT until FROM fanwire_changed"))[0]?.until).toBeTypeOf("number");
    await object.sql("UPDATE fanwire_changed SET until = 1");
    await object.runAlarm();
    expect(await object.sql("SELECT count(*) AS n FROM fanwire_changed").catch(() => [{ n: 0 }])).toEqual([{ n: 0 }]);
  }),
);
