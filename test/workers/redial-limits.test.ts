import { expect, test } from "vitest";
import { hub } from "../../src/workers/index.ts";
import { kinds } from "../../src/workers/protocol.ts";
import { Connection } from "../support/clients/connection.ts";
import { clientRequest, problemOf } from "../support/test-broker.ts";
import { interceptFrames, isHello, kindOf, withPingInterval, withRandom, withTimeouts } from "./support/sockets.ts";
import { type Stub, type TestObject, waitUntil, withObject } from "./support/test-object.ts";
import { publish, transcriptUntil } from "./support/transcript.ts";

// How a Worker notices that its object is gone, how long it waits, and how often it tries again.

/**
 * Runs `body` while pings and events are lost without a close event, until a Worker dials again. Returns how often a Worker has dialed by
 * then.
 */
async function withDeadSocket(body: () => Promise<void>): Promise<number> {
  let hellos = 0;
  const passes = (frame: unknown): boolean => {
    if (isHello(frame)) hellos++;
    return hellos > 0 || (frame !== "?" && kindOf(frame) !== kinds.chunk);
  };
  const { close } = WebSocket.prototype;
  // The Worker closes the socket when it gives it up. The object does not learn of that.
  WebSocket.prototype.close = function (this: WebSocket, ...reason) {
    if (hellos > 0) close.apply(this, reason);
  };
  try {
    await interceptFrames(passes, async () => {
      await body();
      await waitUntil("the Worker dials again", () => hellos > 0);
    });
  } finally {
    WebSocket.prototype.close = close;
  }
  return hellos;
}

for (const duplicateIds of ["allow", "reject", "replace"] as const)
  test(
    `ping, duplicateIds ${duplicateIds}: a socket that died in silence is replaced, twice, and the stream continues`,
    withObject({ duplicateIds }, async (object) => {
      await withPingInterval(100, async () => {
        const client = await object.join({ id: "ada" });
        for (const data of ["1", "2"]) {
          await publish(object, [`before ${data}`]);
          await client.untilData(`before ${data}`);
          expect(await withDeadSocket(async () => void (await publish(object, [data])))).toBe(1);
          await client.untilData(data);
          // The object did not notice that the socket died. The new connection takes the place of the old one.
          await waitUntil("one is connected", async () => (await object.stub.stats()).clients === 1);
        }
        expect(client.data).toEqual(["before 1", "1", "before 2", "2"]);
        expect([client.control("end"), client.control("gap"), client.control("ready").length]).toEqual([[], [], 1]);
      });
    }),
  );

test(
  "ping: a socket that answers is kept",
  withObject({}, async (object) => {
    // An answer may take a while on a machine that is busy.
    await withPingInterval(500, async () => {
      await object.join();
      let hellos = 0;
      let pings = 0;
      await interceptFrames(
        (frame) => {
          if (isHello(frame)) hellos++;
          if (frame === "?") pings++;
          return true;
        },
        () => waitUntil("it has sent pings", () => pings === 3),
      );
      expect(hellos).toBe(0);
    });
  }),
);

test(
  "connect: an object that does not answer the hello in time is engine-down, and its socket is closed",
  withObject({}, async (object) => {
    const isNotWelcome = (frame: unknown): boolean => kindOf(frame) !== kinds.welcome;
    const delays: number[] = [];
    const limit = (ms: number): number => {
      delays.push(ms);
      return ms === 10_000 ? 100 : ms;
    };
    const answer = await withTimeouts(limit, () =>
      interceptFrames(isNotWelcome, () => object.requestStream({ headers: { accept: "*/*" } })),
    );
    expect([answer.status, await problemOf(answer)]).toEqual([503, "engine-down"]);
    // One for the socket, and one for the welcome.
    expect(delays.filter((ms) => ms === 10_000)).toHaveLength(2);
    await object.untilNoClients();
    await publish(object, ["after"]);
    const client = await object.join({ query: { from: "earliest" } });
    expect(await transcriptUntil(client, "after")).toEqual(["after"]);
  }),
);

/** A hub whose dials a test can count and refuse. Its calls go to the object. */
function countingHub(object: TestObject) {
  const dials = {
    count: 0,
    areRefused: false,
    /** Dials reach the object when this resolves. */
    held: Promise.resolve() as Promise<void>,
    /** The answer to the last dial. */
    answered: undefined as Promise<unknown> | undefined,
  };
  const namespace = {
    getByName: () => ({
      serve: (request: Parameters<Stub["serve"]>[0]) => object.stub.serve(request),
      fetch: (url: string, init?: RequestInit) => {
        dials.count++;
        if (dials.areRefused) return Promise.reject(new Error("The object is not available."));
        const answered = dials.held.then(() => object.stub.fetch(url, init));
        dials.answered = answered;
        return answered;
      },
    }),
  };
  return { dials, ...hub(namespace, { name: object.name, retry: 50 }) };
}

test(
  "connect: an object that does not open the socket in time is engine-down, and a socket that comes later is closed",
  withObject({}, async (object) => {
    const { dials, clientHandler } = countingHub(object);
    let proceed = (): void => undefined;
    dials.held = new Promise((resolve) => {
      proceed = resolve;
    });
    const answer = await withTimeouts(
      (ms) => (ms === 10_000 ? 100 : ms),
      () => clientHandler(clientRequest({ headers: { accept: "*/*" } })),
    );
    expect([answer.status, await problemOf(answer), dials.count]).toEqual([503, "engine-down", 1]);
    const openSockets = () => object.inside((_, ctx) => ctx.getWebSockets().length);
    proceed();
    await dials.answered;
    await waitUntil("its socket is closed", async () => (await openSockets()) === 0);
  }),
);

test(
  "redial: the pause doubles with each failure up to 10 seconds, is short again after a good dial, and 40 dials are enough",
  withObject({}, async (object) => {
    const { dials, clientHandler } = countingHub(object);
    const abort = new AbortController();
    const client = new Connection(await clientHandler(clientRequest({}, abort.signal)), abort);
    await client.untilControl("ready");
    let pauses: number[] = [];
    // Three quarters of the pauses, so that none is as long as a timer of another kind. Each is recorded and cut short.
    const record = (ms: number): number => {
      const isPause = ms >= 75 && ms % 75 === 0;
      if (isPause) pauses.push(ms);
      return isPause ? 1 : ms;
    };
    await withRandom(0.25, () =>
      withTimeouts(record, async () => {
        for (let loss = 1; loss <= 5; loss++) {
          await object.evict("close");
          await publish(object, [`${loss}`]);
          await client.untilData(`${loss}`);
        }
        expect(pauses).toEqual([75, 75, 75, 75, 75]);
        pauses = [];
        dials.areRefused = true;
        await object.evict("close");
        expect(await client.ended()).toBe("closed");
      }),
    );
    const growing = [75, 150, 300, 600, 1_200, 2_400, 4_800];
    expect(pauses).toEqual([...growing, ...Array(35 - growing.length).fill(7_500)]);
    // The first one, and 40 more.
    expect(dials.count).toBe(41);
    expect(JSON.parse(client.control("end")[0]?.data ?? "{}")).toEqual({ reason: "engine-down", reconnect: true });
  }),
);
