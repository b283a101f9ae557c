// Cases about several brokers on one log.
import type { Broker } from "../../broker/interface.ts";
import type { EngineCase } from "../harness.ts";
import { defineCase } from "../support/case-context.ts";
import { check, equal, expectRejection, retryWhileDown, until, withTimeout } from "../support/expectation.ts";
import { series } from "./order.ts";

/** Brokers on one log act as one, whichever of them a client or a publisher uses. */
export const brokerCases: readonly EngineCase[] = [
  defineCase(
    "brokers/one-order",
    "Brokers on one log MUST send every event that is published at any of them to the clients of all, in one order and under the same ids.",
    {},
    async (context) => {
      const brokers = [await context.startBroker(), await context.startBroker()];
      const clients = [];
      for (const broker of brokers) clients.push(await context.connect(broker, { channels: ["a", "b"] }));
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
        await client.expectData(expected.map(([data]) => data));
        equal(
          "the ids of the events that it received",
          client.received.map(({ id }) => id),
          expected.map(([, id]) => id),
        );
      }
    },
  ),

  defineCase(
    "brokers/move",
    "A client that moves to another broker with its last id MUST receive every event once.",
    {},
    async (context) => {
      const [one, two] = [await context.startBroker(), await context.startBroker()];
      const first = await context.connect(one, { id: "mover", channels: ["a"] });
      for (const name of series("before ", 3)) await one.broadcast(name, { channels: "a" });
      await first.expectData(series("before ", 3));
      await first.leave();
      for (const [index, name] of series("in between ", 6).entries())
        await (index % 2 ? one : two).broadcast(name, index % 3 ? { channels: "a" } : {});
      const second = await context.connect(two, { id: "mover", channels: ["a"], lastEventId: first.lastEventId });
      await one.broadcast("after", { channels: "a" });
      await second.expectData([...series("in between ", 6), "after"]);
      const { clientId, resumed } = JSON.parse(second.events[0]?.data ?? "{}");
      equal(
        "the answer when it resumed",
        { clientId, resumed },
        {
          clientId: "mover",
          resumed: true,
        },
      );
    },
  ),

  defineCase(
    "brokers/move-busy",
    "A client that moves back and forth while others publish MUST receive every event once.",
    {},
    async (context) => {
      const brokers = [await context.startBroker(), await context.startBroker()];
      const received: string[] = [];
      const expected: string[] = [];
      const publish = async (names: readonly string[]): Promise<void> => {
        for (const [index, name] of names.entries())
          await (brokers[index % 2] as Broker).broadcast(name, index % 3 ? { channels: "a" } : {});
      };
      let client = await context.connect(brokers[0] as Broker, { channels: ["a"] });
      for (let hop = 1; hop <= 6; hop++) {
        const names = series(`event ${hop}.`, 20);
        expected.push(...names);
        const publishing = publish(names);
        await client.waitForData(`event ${hop}.${hop}`);
        await client.leave();
        received.push(...client.data);
        equal("gaps that it received", client.gaps, []);
        const options = { channels: ["a"], lastEventId: client.lastEventId };
        client = await context.connect(brokers[hop % 2] as Broker, options);
        await publishing;
      }
      expected.push("end");
      await publish(["end"]);
      await client.waitForData("end");
      equal("everything that it received", [...received, ...client.data], expected);
      equal("gaps that it received", client.gaps, []);
    },
  ),

  defineCase(
    "brokers/keys",
    "An idempotency key that was used at one broker MUST be known at another.",
    {},
    async (context) => {
      const [one, two] = [await context.startBroker(), await context.startBroker()];
      const client = await context.connect(two, { channels: ["a"] });
      const { id } = await one.broadcast("event", { channels: "a", idempotencyKey: "key" });
      equal(
        "the id of the repeated event",
        (await two.broadcast("event", { channels: "a", idempotencyKey: "key" })).id,
        id,
      );
      const other = two.broadcast("another", { channels: "a", idempotencyKey: "key" });
      await expectRejection(context.timeout, "another event with that key", other, ["key-reused"]);
      await one.broadcast("end", { channels: "a" });
      await client.expectData(["event", "end"]);
    },
  ),

  defineCase(
    "brokers/inbox",
    "A broker MUST reach a client of another broker by its id, and the client MUST find its inbox at every broker.",
    { needs: ["presence"] },
    async (context) => {
      const [one, two] = [await context.startBroker(), await context.startBroker()];
      const first = await context.connect(two, { id: "recipient" });
      await one.broadcastTo("recipient", "to the other broker");
      await first.expectData(["to the other broker"]);
      await first.leave();
      await until(
        context.timeout,
        "the other broker",
        "to notice that the client left",
        () => two.clients().length === 0,
      );
      await one.broadcastTo("recipient", "while it is away");
      const second = await context.connect(one, { id: "recipient", lastEventId: first.lastEventId });
      await two.broadcastTo("recipient", "after it moved");
      await second.expectData(["while it is away", "after it moved"]);
    },
  ),

  defineCase(
    "brokers/unknown-client",
    "A broker MUST refuse an event for a client that no broker has or had with unknown-client.",
    {},
    async (context) => {
      const brokers = [await context.startBroker(), await context.startBroker()];
      for (const broker of brokers)
        await expectRejection(context.timeout, "sending", broker.broadcastTo("nobody", "event"), ["unknown-client"]);
    },
  ),

  defineCase(
    "brokers/disconnect",
    "disconnect() of one broker MUST end the connections of an id at every broker, and bar the id at every broker for the given time.",
    { needs: ["presence"] },
    async (context) => {
      const brokers = [await context.startBroker(), await context.startBroker()];
      const [one, two] = brokers as [Broker, Broker];
      const clients = [await context.connect(one, { id: "guest" }), await context.connect(two, { id: "guest" })];
      const other = await context.connect(two, { id: "other" });
      equal("the result of disconnect()", await one.disconnect("guest", { blockFor: 60_000 }), { clients: 2 });
      for (const client of clients) {
        await client.waitForControl("end");
        await client.waitForEnd();
      }
      for (const broker of brokers) {
        const status = async (): Promise<number> => (await context.request(broker, { id: "guest" })).status;
        equal("the answer to a client that comes back", await status(), 204);
      }
      await one.broadcast("to the others");
      await other.expectData(["to the others"]);
    },
  ),

  defineCase(
    "brokers/reject",
    'A broker with duplicateIds "reject" MUST refuse an id that is connected at another broker.',
    { needs: ["presence"] },
    async (context) => {
      const options = { duplicateIds: "reject" } as const;
      const [one, two] = [await context.startBroker(options), await context.startBroker(options)];
      const first = await context.connect(one, { id: "single" });
      const refused = await context.request(two, { id: "single" });
      const { data } = await refused.waitForControl("end");
      equal("the end of the second", data, '{"reason":"duplicate-id","reconnect":true}');
      await first.leave();
      await until(context.timeout, "a client after the first has left", "to receive its stream", async () => {
        const client = await context.request(two, { id: "single" });
        await until(context.timeout, "a client", "to receive an event", () => client.events.length > 0);
        return client.events[0]?.event === "fanwire-ready";
      });
    },
  ),

  defineCase(
    "brokers/replace",
    'A broker with duplicateIds "replace" MUST end a connection whose id connects at another broker.',
    { needs: ["presence"] },
    async (context) => {
      const options = { duplicateIds: "replace" } as const;
      const [one, two] = [await context.startBroker(options), await context.startBroker(options)];
      const first = await context.connect(one, { id: "single" });
      const second = await context.connect(two, { id: "single" });
      await first.waitForEnd();
      await one.broadcastTo("single", "to the second");
      await second.expectData(["to the second"]);
    },
  ),

  defineCase(
    "brokers/listen",
    "listen() of one broker MUST deliver the events that are published at another broker afterwards.",
    {},
    async (context) => {
      const [one, two] = [await context.startBroker(), await context.startBroker()];
      const listener = two.listen({ channels: "a" });
      const received: unknown[] = [];
      for (const name of series("event ", 5)) await one.broadcast(name, { channels: "a" });
      for (let count = 0; count < 5; count++) {
        const { value } = await withTimeout(context.timeout, "listening", listener.next());
        received.push(value?.type === "event" ? value.data : value);
      }
      await listener.return?.();
      equal("what it received", received, series("event ", 5));
    },
  ),

  defineCase(
    "brokers/close",
    "A broker MUST continue when another one closes, and its clients MUST be able to resume.",
    {},
    async (context) => {
      const [one, two] = [await context.startBroker(), await context.startBroker()];
      const [moves, stays] = [await context.connect(one), await context.connect(two)];
      await one.broadcast("before");
      await moves.waitForData("before");
      await withTimeout(context.timeout, "closing", one.close());
      await two.broadcast("in between");
      const moved = await context.connect(two, { lastEventId: moves.lastEventId });
      await two.broadcast("after");
      await moved.expectData(["in between", "after"]);
      await stays.expectData(["before", "in between", "after"]);
    },
  ),

  defineCase(
    "brokers/feed-cut",
    "A broker whose feed was cut MUST send its clients every event, in order, and no gap.",
    { needs: ["cutFeed"] },
    async (context) => {
      const [one, two] = [await context.startBroker(), await context.startBroker()];
      const client = await context.connect(two, { channels: ["a"] });
      const names = series("event ", 40);
      for (const [index, name] of names.entries()) {
        await one.broadcast(name, index % 2 ? { channels: "a" } : {});
        if (index % 20 === 10) await context.fault("cutFeed")(1);
      }
      await client.expectData(names);
    },
  ),

  defineCase(
    "brokers/last-message-vanished",
    "A broker MUST send its clients an event whose message vanished, even if no event follows.",
    { needs: ["swallowFeed"] },
    async (context) => {
      const [one, two] = [await context.startBroker(), await context.startBroker()];
      const client = await context.connect(two, { channels: ["a"] });
      await one.broadcast("before", { channels: "a" });
      await client.expectData(["before"]);
      const undo = await context.fault("swallowFeed")(1);
      await one.broadcast("vanished", { channels: "a" });
      await undo();
      await client.expectData(["before", "vanished"]);
    },
  ),

  defineCase(
    "brokers/away",
    "A broker whose log is away MUST keep its clients, refuse events, and continue once the log is back.",
    { needs: ["goAway", "comeBack"] },
    async (context) => {
      const [one, two] = [await context.startBroker(), await context.startBroker()];
      const client = await context.connect(two);
      await one.broadcast("before");
      await client.expectData(["before"]);
      await context.fault("goAway")();
      await until(context.timeout, "both engines", "to be down", () =>
        [one, two].every((broker) => broker.stats().engine === "down"),
      );
      await expectRejection(context.timeout, "publishing", one.broadcast("refused"), ["engine-down"]);
      await context.fault("comeBack")();
      await until(context.timeout, "both engines", "to be up", () =>
        [one, two].every((broker) => broker.stats().engine === "up"),
      );
      await one.broadcast("after");
      await client.expectData(["before", "after"]);
    },
  ),

  defineCase(
    "brokers/new-epoch",
    "A broker whose log was replaced MUST send its clients a gap, and continue.",
    { needs: ["beginAnew"] },
    async (context) => {
      const [one, two] = [await context.startBroker(), await context.startBroker()];
      const client = await context.connect(two);
      await one.broadcast("before");
      await client.expectData(["before"]);
      await context.fault("beginAnew")();
      await retryWhileDown(context.timeout, "publishing", () => one.broadcast("after"));
      await client.waitForData("after");
      check(client.gaps.length > 0, "gaps that a client received", "one", client.gaps);
      const late = await context.connect(one, { lastEventId: client.received[0]?.id });
      await late.waitForControl("gap");
      await late.waitForData("after");
      equal("what the clients received", [client.data, late.data], [["before", "after"], ["after"]]);
    },
  ),
];
