// Options that were renamed before the first release: each old name is refused with an error that says the new one.
import { expect, test } from "vitest";
import { type Broker, createBroker, memoryEngine } from "../../../src/index.ts";
import { clientRequest, eventRequest, Recorder, withBroker } from "../../support/test-broker.ts";

type Call = (broker: Broker) => unknown;
/** Options with a name that the types no longer have. */
const old = (name: string, value: unknown): object => ({ [name]: value });

const renamed: readonly (readonly [where: string, oldName: string, newName: string, call: Call])[] = [
  ["createBroker()", "maxAge", "maxConnectionAge", () => createBroker(old("maxAge", 60_000))],
  ["memoryEngine()", "keyWindow", "idempotencyWindow", () => memoryEngine(old("keyWindow", 60_000))],
  ["broadcast()", "channel", "channels", (broker) => broker.broadcast("x", old("channel", "a"))],
  ["broadcast()", "key", "idempotencyKey", (broker) => broker.broadcast("x", old("key", "k"))],
  ["broadcastTo()", "key", "idempotencyKey", (broker) => broker.broadcastTo("one", "x", old("key", "k"))],
  ["listen()", "channel", "channels", (broker) => broker.listen(old("channel", "a"))],
  ["disconnect()", "for", "blockFor", (broker) => broker.disconnect("one", old("for", 60_000))],
  ["close()", "over", "spreadOver", (broker) => broker.close(old("over", 1_000))],
];
for (const [where, oldName, newName, call] of renamed) {
  test(
    `${where}: the old option ${oldName} is refused with an error that names ${newName}`,
    withBroker(async (setup) => {
      const broker = setup.broker();
      const error: unknown = await (async () => call(broker))().then(
        () => expect.unreachable(`${where} accepted ${oldName}`),
        (thrown: unknown) => thrown,
      );
      expect(error).toBeInstanceOf(TypeError);
      expect((error as TypeError).message).toContain(`"${oldName}"`);
      expect((error as TypeError).message).toContain(`"${newName}"`);
      // The call had no effect.
      expect(broker.stats()).toMatchObject({ published: 0, channels: 0 });
      expect((await broker.eventHandler(eventRequest("x"))).status).toBe(200);
    }),
  );
}

for (const [oldName, newName] of [
  ["channel", "channels"],
  ["id", "clientId"],
] as const) {
  test(
    `Grant: the old field ${oldName} allows nothing, and onError receives an error that names ${newName}`,
    withBroker(async (setup) => {
      const errors = new Recorder<{ readonly error: unknown }>();
      const broker = setup.broker({ authorize: () => old(oldName, "a"), onError: errors.record });
      const answer = await broker.clientHandler(clientRequest());
      expect(answer.status).toBe(500);
      const { error } = await errors.next();
      expect(error).toBeInstanceOf(TypeError);
      expect((error as TypeError).message).toContain(`"${newName}"`);
      // The client does not receive the error's message.
      expect(await answer.text()).not.toContain(newName);
    }),
  );
}
