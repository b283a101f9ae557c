// Messages on the channels of the feed that no script sent.
import { afterEach, describe, expect, test } from "vitest";
import type { Broker } from "../../src/index.ts";
import { needsRedis } from "../support/servers/redis.ts";
import { useRedis } from "./support/use-redis.ts";

const HUGE = "9007199254740991";

describe("redisEngine: forged messages", needsRedis, () => {
  const redis = useRedis();
  const errors: unknown[] = [];
  afterEach(() => {
    errors.length = 0;
  });
  const open = (): Broker => redis.open({}, { onError: ({ error }) => void errors.push(error) });

  /** Connects a client of the channel `a`, and collects the ids and data that it receives. */
  async function join(broker: Broker): Promise<{ events: string[]; text: () => string }> {
    const response = await broker.fetch(new Request("http://broker/connect?channel=a"));
    const events: string[] = [];
    let text = "";
    void (async () => {
      for await (const chunk of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
        text += chunk;
        events.length = 0;
        for (const block of text.split("\n\n")) {
          const data = /^data: (event .*)$/m.exec(block)?.[1];
          if (data) events.push(`${/^id: (.*)$/m.exec(block)?.[1]} ${data}`);
        }
      }
    })().catch(() => undefined);
    return { events, text: () => text };
  }
  /** Returns the messages that the scripts have sent to the channel `a` from now on. */
  async function overhear(): Promise<string[]> {
    const messages: string[] = [];
    const client = redis.connect();
    await client.subscribe("{test}:feed:#a");
    client.on("message", (_, message: string) => messages.push(message));
    return messages;
  }

  type Forge = (genuine: string, epoch: string, head: number) => string;
  const lines =
    (change: (lines: string[]) => void): Forge =>
    (genuine) => {
      const all = genuine.split("\n");
      change(all);
      return all.join("\n");
    };
  const forgeries: readonly (readonly [string, Forge])[] = [
    ["a huge position", lines((all) => void (all[1] = HUGE))],
    ["a position beyond what is safe", lines((all) => void (all[1] = "9".repeat(30)))],
    ["a negative position", lines((all) => void (all[1] = "-5"))],
    ["NaN", lines((all) => void (all[1] = "NaN"))],
    ["another epoch", lines((all) => void (all[0] = (all[0] as string).replace(/^\w{16}/, "0123456789abcdef")))],
    ["a huge position in another epoch", lines((all) => all.splice(0, 2, `0123456789abcdef ${"0".repeat(24)}`, HUGE))],
    ["a message that ends early", (genuine) => genuine.slice(0, 20)],
    ["a huge number of keys", lines((all) => void (all[2] = HUGE))],
    [
      "the next position, without the secret",
      (_, epoch, head) => `${epoch} x\n${head + 1}\n1\n${head}\n#a\ndata: event lie\n`,
    ],
    [
      "a later position, without the secret",
      (_, epoch, head) => `${epoch}\n${head + 9}\n1\n${head}\n#a\ndata: event lie\n`,
    ],
    [
      "the next position, with another secret",
      (_, epoch, head) => `${epoch} ${"0".repeat(24)}\n${head + 1}\n1\n${head}\n#a\ndata: event lie\n`,
    ],
    ["nothing", () => ""],
    ["a checkpoint of a huge position", (_, epoch) => `1 1 1 ${epoch} x ${HUGE} 0\n0`],
  ];

  test.each(forgeries)("%s: is ignored and reported; the epoch goes on, and no event is lost", async (_, forge) => {
    const [broker, other] = [open(), open()];
    const client = await join(broker);
    const overheard = await overhear();
    const sent: string[] = [];
    const publish = async (from: Broker, count: number): Promise<void> => {
      for (let n = 0; n < count; n++) {
        const data = `event ${sent.length + 1}`;
        const { id } = await from.broadcast(data, { channels: "a" });
        sent.push(`${id} ${data}`);
      }
    };
    await publish(broker, 3);
    await expect.poll(() => client.events).toEqual(sent);
    await expect.poll(() => overheard.length).toBe(3);
    const [id = ""] = (sent.at(-1) as string).split(" ");
    const dash = id.lastIndexOf("-");
    const epoch = id.slice(0, dash);
    const message = forge(overheard.at(-1) as string, epoch, Number(id.slice(dash + 1)));
    for (const channel of ["{test}:feed:#a", "{test}:inbox"]) await redis.server.command("PUBLISH", channel, message);
    // Before the process can have heard more, and afterwards.
    await publish(other, 2);
    await expect.poll(() => client.events).toEqual(sent);
    await expect.poll(() => errors.length).toBeGreaterThan(0);
    await publish(broker, 2);
    await publish(other, 2);
    await expect.poll(() => client.events).toEqual(sent);
    expect(sent.map((event, index) => event.startsWith(`${epoch}-${index + 1} `))).toEqual(sent.map(() => true));
    expect(client.text()).not.toMatch(/fanwire-gap|event lie/);
    expect(await redis.server.command("HGET", "{test}:log", "epoch")).toBe(epoch);
  });

  test("a checkpoint that the process asked for, forged with another head: is ignored", async () => {
    const broker = open();
    const client = await join(broker);
    const { id } = await broker.broadcast("event 1", { channels: "a" });
    const epoch = id.slice(0, id.lastIndexOf("-"));
    const [channel = ""] = (await redis.server.command("PUBSUB", "CHANNELS", "{test}:checkpoint:*")) as string[];
    expect(channel).not.toBe("");
    for (let token = 1; token < 20; token++)
      for (const name of [epoch, "0123456789abcdef"])
        for (const proof of ["nonce 1 1", "1 1"])
          for (const secret of [`${name} secret`, name]) {
            const forged = `${token} ${proof} ${secret} ${HUGE} 0\n${HUGE} ${HUGE}`;
            await redis.server.command("PUBLISH", channel, forged);
          }
    const second = await broker.broadcast("event 2", { channels: "a" });
    expect(second.id).toBe(`${epoch}-2`);
    await expect.poll(() => client.events).toEqual([`${id} event 1`, `${second.id} event 2`]);
    expect(client.text()).not.toContain("fanwire-gap");
  });
});
