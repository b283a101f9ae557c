// Bounds by owner: a tenant or publisher that takes more than its part of the log loses of its own, and nobody else does.
import { expect, test } from "vitest";
import type { Broker } from "../../../src/index.ts";
import {
  codeOf,
  eventRequest,
  problemOf,
  type TestBrokerOptions,
  type TestSetup,
  withBroker,
} from "../../support/test-broker.ts";

type Log = NonNullable<TestBrokerOptions["log"]>;
/** The part of a channel's name before the first slash. */
const tenant = (channel: string): string => channel.slice(0, channel.indexOf("/"));

const names = (prefix: string, count: number): string[] =>
  Array.from({ length: count }, (_, index) => `${prefix}${index}`);

/** Creates a broker whose publishers are called as the header `x-subject` says. */
const withPublishers = (setup: TestSetup, log: Log): Broker =>
  setup.broker({
    log,
    authorize: ({ request, action, channels }) =>
      action === "connect" || { subject: request.headers.get("x-subject") ?? "", channels },
  });

async function publish(broker: Broker, subject: string, data: string, channels: readonly string[]): Promise<void> {
  const query = channels.map((name) => `channel=${encodeURIComponent(name)}`).join("&");
  const answer = await broker.fetch(eventRequest(data, `?${query}`, { headers: { "x-subject": subject } }));
  expect(answer.status).toBe(200);
  await answer.body?.cancel();
}

/** Returns the id that a client has before anything is published. */
async function idBefore(setup: TestSetup, broker: Broker): Promise<string> {
  const client = await setup.join(broker);
  await client.leave();
  return client.lastEventId ?? "";
}

/** Returns what a client receives that comes back to these channels with an id. */
async function received(setup: TestSetup, broker: Broker, channel: readonly string[], lastEventId: string) {
  const client = await setup.connect(broker, { channel, lastEventId });
  await broker.broadcast("end");
  await client.untilData("end");
  return { data: client.data.slice(0, -1), gaps: client.control("gap").map(({ data }) => data) };
}

/** Two ways to tell owners apart: by the tenant of a channel, and by the publisher. */
const WAYS: readonly (readonly [by: string, log: Log])[] = [
  ["tenant", { tenant }],
  ["subject", {}],
];
for (const [by, log] of WAYS) {
  test(
    `maxChannels, by ${by}: 1,001 events in 100 new channels each take nothing from another owner`,
    { timeout: 240_000 },
    withBroker(async (setup) => {
      const broker = withPublishers(setup, log);
      const lastEventId = await idBefore(setup, broker);
      const channels = names("ada/", 20);
      for (const name of channels) await publish(broker, "ada", `in ${name}`, [name]);

      for (let post = 0; post < 1_001; post++) await publish(broker, "eve", "x", names(`eve/${post}-`, 100));

      expect(broker.stats().log.channels).toBeLessThanOrEqual(100_000);
      const expected = { data: channels.map((name) => `in ${name}`), gaps: [] };
      expect(await received(setup, broker, channels, lastEventId)).toEqual(expected);
      const { gaps } = await received(setup, broker, ["eve/0-0"], lastEventId);
      expect(gaps.join()).toContain('"eve/0-0"');
    }),
  );

  test(
    `logBytes, by ${by}: a flood of 2,000 channels takes nothing from an owner of 200 events in one channel`,
    { timeout: 240_000 },
    withBroker(async (setup) => {
      const broker = withPublishers(setup, { ...log, logBytes: 1024 * 1024 });
      const lastEventId = await idBefore(setup, broker);
      const data = names("event ", 200).map((name) => name.padEnd(1_000));
      for (const each of data) await publish(broker, "ada", each, ["ada/a"]);

      for (const name of names("eve/", 2_000)) await publish(broker, "eve", "x".repeat(1_000), [name]);

      expect(broker.stats().log.bytes).toBeGreaterThan(1_000_000);
      expect(await received(setup, broker, ["ada/a"], lastEventId)).toEqual({ data, gaps: [] });
    }),
  );
}

test(
  "logBytes: an event in many channels counts once for their owner, and each channel with what the log needs for it",
  withBroker(async (setup) => {
    const broker = withPublishers(setup, { tenant, logBytes: 40_000 });
    const lastEventId = await idBefore(setup, broker);
    const data = "x".repeat(10_000);
    await broker.broadcast(data, { channels: names("ada/", 20) });
    const { bytes } = broker.stats().log;
    expect(bytes).toBeGreaterThan(10_000 + 20 * 200);
    expect(bytes).toBeLessThan(10_000 + 20 * 300);
    for (const each of names("eve's ", 100)) await broker.broadcast(each.padEnd(1_000), { channels: "eve/a" });
    expect(await received(setup, broker, names("ada/", 20), lastEventId)).toEqual({ data: [data], gaps: [] });
  }),
);

test(
  "logBytes: an event in channels of two owners counts for both, and leaves the log when both have dropped it",
  withBroker(async (setup) => {
    const broker = withPublishers(setup, { tenant, logBytes: 40_000 });
    const lastEventId = await idBefore(setup, broker);
    await broker.broadcast("of both".padEnd(10_000), { channels: ["ada/a", "eve/a", "eve/b"] });
    for (const each of names("eve's ", 100)) await broker.broadcast(each.padEnd(1_000), { channels: "eve/c" });
    expect((await received(setup, broker, ["ada/a"], lastEventId)).data).toEqual(["of both".padEnd(10_000)]);
    for (const each of names("ada's ", 100)) await broker.broadcast(each.padEnd(1_000), { channels: "ada/b" });
    expect((await received(setup, broker, ["ada/a"], lastEventId)).gaps.join()).toContain('"ada/a"');
    expect(broker.stats().log.bytes).toBeLessThanOrEqual(40_000);
  }),
);

test(
  "maxChannels: what a tenant's forgotten channels had is in doubt for its own unknown channels, and for no others",
  withBroker(async (setup) => {
    const broker = withPublishers(setup, { tenant, maxChannels: 10 });
    const lastEventId = await idBefore(setup, broker);
    for (const name of names("eve/", 20)) await broker.broadcast("x", { channels: name });
    expect(await received(setup, broker, ["ada/never"], lastEventId)).toEqual({ data: [], gaps: [] });
    expect((await received(setup, broker, ["eve/never"], lastEventId)).gaps.join()).toContain('"eve/never"');
  }),
);

test(
  "maxChannels: an owner that has no channel any more leaves nothing behind, and what it had stays in doubt",
  withBroker(async (setup) => {
    const broker = withPublishers(setup, { tenant, maxChannels: 3 });
    const lastEventId = await idBefore(setup, broker);
    for (const name of names("tenant", 10)) await broker.broadcast("x", { channels: `${name}/a` });
    expect(broker.stats().log).toMatchObject({ channels: 3, events: 3 });
    expect((await received(setup, broker, ["tenant0/a"], lastEventId)).gaps.join()).toContain('"tenant0/a"');
  }),
);

test(
  "subject: a channel whose events have all ended belongs to the next publisher",
  withBroker(async (setup) => {
    const broker = withPublishers(setup, { logBytes: 20_000 });
    const lastEventId = await idBefore(setup, broker);
    // The events of eve's first channel are pushed out by her own ones.
    await publish(broker, "eve", "first", ["shared"]);
    for (const name of names("large ", 30)) await publish(broker, "eve", "x".repeat(1_000), [name]);
    for (let event = 0; event < 3; event++) await publish(broker, "ada", `ada's ${event}`, ["shared"]);
    for (const name of names("more ", 100)) await publish(broker, "eve", "x".repeat(1_000), [name]);
    const { data } = await received(setup, broker, ["shared"], lastEventId);
    expect(data.filter((each) => each.startsWith("ada"))).toEqual(["ada's 0", "ada's 1", "ada's 2"]);
  }),
);

const fails = (): never => {
  throw new Error("no such tenant");
};
const WRONG: readonly (readonly [what: string, result: () => unknown])[] = [
  ["throws", fails],
  ["returns undefined", () => undefined],
  ["returns a number", () => 7],
  ["returns a promise", () => Promise.resolve("ada")],
];
for (const [what, result] of WRONG) {
  test(
    `tenant: if it ${what}, the event is refused, and nothing is appended or remembered`,
    withBroker(async (setup) => {
      const tenantOf = (channel: string): string => (channel === "wrong" ? (result() as string) : "ada");
      const broker = setup.broker({ log: { tenant: tenantOf }, publishToken: "secret" });
      const before = broker.stats();
      const event = { channels: ["right", "wrong"], idempotencyKey: "k" };
      expect(await codeOf(broker.broadcast("x", event))).toBe(what === "throws" ? "Error" : "TypeError");
      const headers = { authorization: "Bearer secret" };
      const answer = await broker.fetch(eventRequest("x", "?channel=wrong", { headers }));
      expect([answer.status, await problemOf(answer)]).toEqual([500, "internal"]);
      expect(broker.stats().log).toEqual(before.log);
      // The key is free, and other channels are not affected.
      const { id } = await broker.broadcast("y", { channels: "right", idempotencyKey: "k" });
      expect(id).toMatch(/-1$/);
      // A client may still read the channel.
      await setup.join(broker, { channel: "wrong", lastEventId: id });
    }),
  );
}

test(
  "tenant: anything but a function is refused by the engine",
  withBroker(async (setup) => {
    for (const wrong of [null, true, "ada", {}])
      expect(() => setup.engine({ tenant: wrong as unknown as typeof tenant })).toThrow(TypeError);
    expect(() => setup.engine({ tenant: undefined })).not.toThrow();
  }),
);
