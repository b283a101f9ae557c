// What `fanwire-ready` says of the beginning of a stream that starts at the earliest retained event.
import { expect, test } from "vitest";
import type { Broker } from "../../../src/index.ts";
import { type ConnectOptions, type TestSetup, withBroker } from "../../support/test-broker.ts";

interface Ready {
  readonly channels: readonly string[];
  readonly complete?: boolean;
  readonly incomplete?: readonly string[];
}

async function readyOf(setup: TestSetup, broker: Broker, options: ConnectOptions): Promise<Ready> {
  const client = await setup.connect(broker, options);
  const ready = JSON.parse((await client.untilControl("ready")).data) as Ready;
  await client.leave();
  return ready;
}

const EARLIEST = { query: { from: "earliest" } };
const publish = async (broker: Broker, channels: string, count: number): Promise<void> => {
  for (let n = 0; n < count; n++) await broker.broadcast(`${n}`, { channels });
};

test(
  "from=earliest: complete while nothing was dropped, and for channels without an event",
  withBroker(async (setup) => {
    const broker = setup.broker();
    await publish(broker, "a", 3);
    const ready = await readyOf(setup, broker, { channel: ["a", "never used"], ...EARLIEST });
    expect(ready).toMatchObject({ channels: ["a", "never used"], complete: true, incomplete: [] });
  }),
);

test(
  "from=earliest: names the channels whose beginning is gone, also when nothing of them is left",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { events: 2, age: 60 } } });
    await publish(broker, "old", 1);
    await new Promise((resolve) => setTimeout(resolve, 90));
    await publish(broker, "long", 3);
    await publish(broker, "whole", 2);
    const ready = await readyOf(setup, broker, { channel: ["old", "long", "whole"], ...EARLIEST });
    expect(ready).toMatchObject({ channels: ["old", "long", "whole"], complete: false, incomplete: ["old", "long"] });
  }),
);

test(
  "from=earliest: what maxReplay leaves out is a beginning that is gone",
  withBroker(async (setup) => {
    const broker = setup.broker({ maxReplay: { events: 2 } });
    await publish(broker, "a", 3);
    await publish(broker, "b", 1);
    const ready = await readyOf(setup, broker, { channel: ["a", "b"], ...EARLIEST });
    expect(ready).toMatchObject({ complete: false, incomplete: ["a"] });
  }),
);

test(
  "any other start says nothing of the beginning",
  withBroker(async (setup) => {
    const broker = setup.broker({ log: { retention: { events: 2 } } });
    await publish(broker, "a", 3);
    const { id } = await broker.broadcast("x", { channels: "a" });
    for (const options of [{}, { lastEventId: id }, { lastEventId: "unknown-1" }, { lastEventId: id, ...EARLIEST }])
      expect(await readyOf(setup, broker, { channel: "a", ...options })).not.toHaveProperty("complete");
  }),
);

test(
  "channels: those of the request, or all that the grant lists",
  withBroker(async (setup) => {
    const broker = setup.broker({ authorize: () => ({ clientId: "ann", channels: ["a", "b"] }) });
    expect((await readyOf(setup, broker, { channel: "b" })).channels).toEqual(["b"]);
    expect((await readyOf(setup, broker, {})).channels).toEqual(["a", "b"]);
  }),
);
