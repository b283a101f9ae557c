// Errors that no caller waits for, in a broker without `onError`: they are printed, once a minute for each stage.
import { afterEach, beforeEach, expect, type Mock, test, vi } from "vitest";
import type { Broker, BrokerOptions } from "../../../src/index.ts";
import { clientRequest, eventRequest, withBroker } from "../../support/test-broker.ts";

/** Waits until a check passes. On a busy machine that may take longer than the second that vitest would wait. */
const eventually = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 10_000 });

let print: Mock<typeof console.error>;
beforeEach(() => {
  print = vi.spyOn(console, "error").mockImplementation(() => undefined) as Mock<typeof console.error>;
});
afterEach(() => {
  vi.restoreAllMocks();
});

/** Takes the place of the callback of the tests. */
const UNSET = { onError: undefined } as unknown as BrokerOptions;
const broken = new Error("broken");
const fail = (): never => {
  throw broken;
};
/** Connects a client whose `authorize` fails. */
const connect = async (broker: Broker): Promise<number> => (await broker.fetch(clientRequest())).status;
const printed = (): unknown[][] => print.mock.calls;

test(
  "onError: without it, an error of authorize is printed with its stage and the error itself",
  withBroker(async (setup) => {
    const broker = setup.broker({ authorize: fail, ...UNSET });
    expect(await connect(broker)).toBe(500);
    await eventually(() => expect(printed()).toHaveLength(1));
    const [message, error] = printed()[0] ?? [];
    expect(message).toMatch(/^fanwire: error in stage "authorize"; set onError/);
    expect(error).toBe(broken);
  }),
);

test(
  "onError: without it, each stage is printed once a minute, with the number of errors in between",
  withBroker(async (setup) => {
    let time = 1_000;
    vi.spyOn(performance, "now").mockImplementation(() => time);
    const broker = setup.broker({ authorize: fail, errorHandler: fail, ...UNSET });
    const stages = () => printed().map(([message]) => /stage "([a-z-]+)"/.exec(String(message))?.[1]);
    for (let count = 0; count < 5; count++) await connect(broker);
    await eventually(() => expect(stages()).toEqual(["authorize", "error-handler"]));
    time += 59_999;
    await connect(broker);
    expect(stages()).toHaveLength(2);
    time += 1;
    await connect(broker);
    await eventually(() => expect(stages()).toEqual(["authorize", "error-handler", "authorize", "error-handler"]));
    expect(printed()[2]?.[0]).toContain('"authorize" and 5 before it;');
    time += 60_000;
    await connect(broker);
    await eventually(() => expect(stages()).toHaveLength(6));
    expect(printed()[4]?.[0]).not.toContain("before it");
  }),
);

test(
  "onError: with one of the application's own, and for refusals, nothing is printed",
  withBroker(async (setup) => {
    const seen: unknown[] = [];
    const broker = setup.broker({ authorize: fail, onError: ({ error }) => seen.push(error) });
    expect(await connect(broker)).toBe(500);
    await eventually(() => expect(seen).toEqual([broken]));
    const refusing = setup.broker({ authorize: () => false, ...UNSET });
    expect(await connect(refusing)).toBe(403);
    expect((await refusing.fetch(eventRequest("x", "?chanel=a"))).status).toBe(400);
    expect((await refusing.fetch(new Request("https://fanwire.test/nothing"))).status).toBe(404);
    expect(printed()).toEqual([]);
  }),
);
