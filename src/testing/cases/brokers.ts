import type { Broker } from "../../broker/broker.ts";
import type { EngineCase } from "../harness.ts";
import { check, equal, inTime, persist, rejects, until } from "../support/expectation.ts";
import { caseOf } from "../support/test-broker.ts";
import { series } from "./order.ts";

/** Brokers on one log behave as one, whichever a client or a publisher came to. */
export const brokerCases: readonly EngineCase[] = [
  caseOf(
    "brokers/one-order",
    "Brokers on one log MUST give the clients of each what is published at any, in one order and under the same ids.",
    {},
    async (stage) => {
      const brokers = [await stage.broker(), await stage.broker()];
      const clients = [];
      for (const broker of brokers) clients.push(await stage.client(broker, { channels: ["a", "b"] }));
      const ids = new Map<string, string>();
      for (let round = 1; round <= 10; round++) {
        const publishing = brokers.flatMap((broker, index) =>
          ["a", ["a", "b"], undefined].map(async (channel, which) => {
            const data = `${index} in ${round}: ${which}`;
            ids.set(data, (await broker.broadcast(data, channel === undefined ? {} : { channels: channel })).id);
          }),
        );
        await Promise.all(publishing);
      }
      const seqOf = (id: string): number => Number(id.slice(id.lastIndexOf("-") + 1));
      const expected = [...ids].sort(([, a], [, b]) => seqOf(a) - seqOf(b));
      for (const client of clients) {
        await client.hasRead(expected.map(([data]) => data));
        equal(
          "the ids of what it read",
          client.received.map(({ id }) => id),
          expected.map(([, id]) => id),
        );
      }
    },
  ),

  caseOf(
    "brokers/move",
    "A client that goes to another broker with its last id MUST miss nothing and get nothing twice.",
    {},
    async (stage) => {
      const [one, two] = [await stage.broker(), await stage.broker()];
      const first = await stage.client(one, { id: "mover", channels: ["a"] });
      for (const name of series("before ", 3)) await one.broadcast(name, { channels: "a" });
      await first.hasRead(series("before ", 3));
      await first.leave();
      for (const [index, name] of series("meanwhile ", 6).entries())
        await (index % 2 ? one : two).broadcast(name, index % 3 ? { channels: "a" } : {});
      const second = await stage.client(two, { id: "mover", channels: ["a"], lastEventId: first.lastEventId });
      await one.broadcast("after", { channels: "a" });
      await second.hasRead([...series("meanwhile ", 6), "after"]);
      equal("whether it continues", JSON.parse(second.events[0]?.data ?? "{}"), { clientId: "mover", resumed: true });
    },
  ),

  caseOf(
    "brokers/move-busy",
    "A client that goes back and forth while others publish MUST miss nothing and get nothing twice.",
    {},
    async (stage) => {
      const brokers = [await stage.broker(), await stage.broker()];
      const read: string[] = [];
      const expected: string[] = [];
      const publish = async (names: readonly string[]): Promise<void> => {
        for (const [index, name] of names.entries())
          await (brokers[index % 2] as Broker).broadcast(name, index % 3 ? { channels: "a" } : {});
      };
      let client = await stage.client(brokers[0] as Broker, { channels: ["a"] });
      for (let hop = 1; hop <= 6; hop++) {
        const names = series(`event ${hop}.`, 20);
        expected.push(...names);
        const publishing = publish(names);
        await client.hears(`event ${hop}.${hop}`);
        await client.leave();
        read.push(...client.data);
        equal("gaps that it was told of", client.gaps, []);
        const wish = { channels: ["a"], lastEventId: client.lastEventId };
        client = await stage.client(brokers[hop % 2] as Broker, wish);
        await publishing;
      }
      expected.push("end");
      await publish(["end"]);
      await client.hears("end");
      equal("what it read in all", [...read, ...client.data], expected);
      equal("gaps that it was told of", client.gaps, []);
    },
  ),

  caseOf("brokers/keys", "A key that was used at one broker MUST be known at another.", {}, async (stage) => {
    const [one, two] = [await stage.broker(), await stage.broker()];
    const client = await stage.client(two, { channels: ["a"] });
    const { id } = await one.broadcast("event", { channels: "a", idempotencyKey: "key" });
    equal("the id of the same event", (await two.broadcast("event", { channels: "a", idempotencyKey: "key" })).id, id);
    const other = two.broadcast("another", { channels: "a", idempotencyKey: "key" });
    await rejects(stage.patience, "another event of that key", other, ["key-reused"]);
    await one.broadcast("end", { channels: "a" });
    await client.hasRead(["event", "end"]);
  }),

  caseOf(
    "brokers/inbox",
    "A broker MUST reach a client of another by its id, and its inbox MUST go with it.",
    { needs: ["presence"] },
    async (stage) => {
      const [one, two] = [await stage.broker(), await stage.broker()];
      const first = await stage.client(two, { id: "recipient" });
      await one.broadcastTo("recipient", "to the other");
      await first.hasRead(["to the other"]);
      await first.leave();
      await until(stage.patience, "the other broker", "to know that it left", () => two.clients().length === 0);
      await one.broadcastTo("recipient", "while it is away");
      const second = await stage.client(one, { id: "recipient", lastEventId: first.lastEventId });
      await two.broadcastTo("recipient", "where it went");
      await second.hasRead(["while it is away", "where it went"]);
    },
  ),

  caseOf(
    "brokers/unknown-client",
    "A broker MUST refuse with unknown-client what is for a client that no broker has or had.",
    {},
    async (stage) => {
      const brokers = [await stage.broker(), await stage.broker()];
      for (const broker of brokers)
        await rejects(stage.patience, "sending", broker.broadcastTo("nobody", "event"), ["unknown-client"]);
    },
  ),

  caseOf(
    "brokers/disconnect",
    "A broker MUST end the clients of an id at every broker, and turn it away at every one for as long as it was told.",
    { needs: ["presence"] },
    async (stage) => {
      const brokers = [await stage.broker(), await stage.broker()];
      const [one, two] = brokers as [Broker, Broker];
      const clients = [await stage.client(one, { id: "guest" }), await stage.client(two, { id: "guest" })];
      const other = await stage.client(two, { id: "other" });
      equal("how many were ended", await one.disconnect("guest", { blockFor: 60_000 }), { clients: 2 });
      for (const client of clients) {
        await client.control("end");
        await client.ended();
      }
      for (const broker of brokers) {
        const status = async (): Promise<number> => (await stage.request(broker, { id: "guest" })).status;
        equal("the answer to who comes back", await status(), 204);
      }
      await one.broadcast("to who is left");
      await other.hasRead(["to who is left"]);
    },
  ),

  caseOf(
    "brokers/reject",
    'Brokers with duplicateIds "reject" MUST refuse an id that is connected at another.',
    { needs: ["presence"] },
    async (stage) => {
      const options = { duplicateIds: "reject" } as const;
      const [one, two] = [await stage.broker(options), await stage.broker(options)];
      const first = await stage.client(one, { id: "single" });
      equal("the answer to the second", (await stage.request(two, { id: "single" })).status, 409);
      await first.leave();
      await until(stage.patience, "the answer when the first has left", "to be 200", async () => {
        return (await stage.request(two, { id: "single" })).status === 200;
      });
    },
  ),

  caseOf(
    "brokers/replace",
    'Brokers with duplicateIds "replace" MUST end a client whose id connects at another.',
    { needs: ["presence"] },
    async (stage) => {
      const options = { duplicateIds: "replace" } as const;
      const [one, two] = [await stage.broker(options), await stage.broker(options)];
      const first = await stage.client(one, { id: "single" });
      const second = await stage.client(two, { id: "single" });
      await first.ended();
      await one.broadcastTo("single", "to the second");
      await second.hasRead(["to the second"]);
    },
  ),

  caseOf(
    "brokers/listen",
    "A listener of one broker MUST get what is published at another after it was made.",
    {},
    async (stage) => {
      const [one, two] = [await stage.broker(), await stage.broker()];
      const listener = two.listen({ channels: "a" });
      const got: unknown[] = [];
      for (const name of series("event ", 5)) await one.broadcast(name, { channels: "a" });
      for (let count = 0; count < 5; count++) {
        const { value } = await inTime(stage.patience, "listening", listener.next());
        got.push(value?.type === "event" ? value.data : value);
      }
      await listener.return?.();
      equal("what it got", got, series("event ", 5));
    },
  ),

  caseOf(
    "brokers/close",
    "A broker MUST go on when another one closes, and take over its clients.",
    {},
    async (stage) => {
      const [one, two] = [await stage.broker(), await stage.broker()];
      const [moves, stays] = [await stage.client(one), await stage.client(two)];
      await one.broadcast("before");
      await moves.hears("before");
      await inTime(stage.patience, "closing", one.close());
      await two.broadcast("meanwhile");
      const moved = await stage.client(two, { lastEventId: moves.lastEventId });
      await two.broadcast("after");
      await moved.hasRead(["meanwhile", "after"]);
      await stays.hasRead(["before", "meanwhile", "after"]);
    },
  ),

  caseOf(
    "brokers/feed-cut",
    "A broker whose feed was cut MUST give its clients everything, in order, and say of nothing that it is lost.",
    { needs: ["cutFeed"] },
    async (stage) => {
      const [one, two] = [await stage.broker(), await stage.broker()];
      const client = await stage.client(two, { channels: ["a"] });
      const names = series("event ", 40);
      for (const [index, name] of names.entries()) {
        await one.broadcast(name, index % 2 ? { channels: "a" } : {});
        if (index % 20 === 10) await stage.fault("cutFeed")(1);
      }
      await client.hasRead(names);
    },
  ),

  caseOf(
    "brokers/last-message-vanished",
    "A broker MUST give its clients an event whose message vanished, also where nothing comes after it.",
    { needs: ["swallowFeed"] },
    async (stage) => {
      const [one, two] = [await stage.broker(), await stage.broker()];
      const client = await stage.client(two, { channels: ["a"] });
      await one.broadcast("before", { channels: "a" });
      await client.hasRead(["before"]);
      const undo = await stage.fault("swallowFeed")(1);
      await one.broadcast("vanished", { channels: "a" });
      await undo();
      await client.hasRead(["before", "vanished"]);
    },
  ),

  caseOf(
    "brokers/away",
    "A broker whose log is away MUST keep its clients, refuse what is published, and go on once it is back.",
    { needs: ["goAway", "comeBack"] },
    async (stage) => {
      const [one, two] = [await stage.broker(), await stage.broker()];
      const client = await stage.client(two);
      await one.broadcast("before");
      await client.hasRead(["before"]);
      await stage.fault("goAway")();
      await until(stage.patience, "both engines", "to be down", () =>
        [one, two].every((broker) => broker.stats().engine === "down"),
      );
      await rejects(stage.patience, "publishing", one.broadcast("refused"), ["engine-down"]);
      await stage.fault("comeBack")();
      await until(stage.patience, "both engines", "to be up", () =>
        [one, two].every((broker) => broker.stats().engine === "up"),
      );
      await one.broadcast("after");
      await client.hasRead(["before", "after"]);
    },
  ),

  caseOf(
    "brokers/new-epoch",
    "A broker whose log began anew MUST tell its clients of a gap, and go on.",
    { needs: ["beginAnew"] },
    async (stage) => {
      const [one, two] = [await stage.broker(), await stage.broker()];
      const client = await stage.client(two);
      await one.broadcast("before");
      await client.hasRead(["before"]);
      await stage.fault("beginAnew")();
      await persist(stage.patience, "publishing", () => one.broadcast("after"));
      await client.hears("after");
      check(client.gaps.length > 0, "gaps that a client was told of", "one", client.gaps);
      const late = await stage.client(one, { lastEventId: client.received[0]?.id });
      await late.control("gap");
      await late.hears("after");
      equal("what the others read", [client.data, late.data], [["before", "after"], ["after"]]);
    },
  ),
];
