import { expect, test } from "vitest";
import {
  CLOSE_PROTOCOL_ERROR,
  type Frame,
  kinds,
  readFrame,
  readJsonFrame,
  VERSION,
  type Welcome,
  writeFrame,
  writeJsonFrame,
} from "../../src/workers/protocol.ts";
import { seqOf } from "../support/clients/connection.ts";
import { codeOf } from "../support/test-broker.ts";
import { numbers, pause, type TestObject, waitUntil, withObject } from "./support/test-object.ts";
import { publish, transcript, transcriptUntil } from "./support/transcript.ts";

// The protocol between the Worker and the object: unknown, lost and repeated frames.

interface WorkerSocket {
  readonly socket: WebSocket;
  readonly closed: Promise<number>;
  readonly received: ArrayBuffer[];
}

/** Opens a socket to the object, as a Worker does. With `allowHalfOpen` it stays open when the object closes its end. */
async function dial(object: TestObject, allowHalfOpen = false): Promise<WorkerSocket> {
  const { value } = await object.stub.serve({ type: "secret" });
  const { webSocket } = await object.stub.fetch("https://fanwire.invalid/", {
    headers: { upgrade: "websocket", authorization: `Bearer ${value}` },
  });
  const socket = webSocket as unknown as WebSocket & { accept(options: object): void };
  socket.binaryType = "arraybuffer";
  const received: ArrayBuffer[] = [];
  socket.addEventListener("message", ({ data }) => void received.push(data as ArrayBuffer));
  const closed = new Promise<number>((resolve) => socket.addEventListener("close", ({ code }) => resolve(code)));
  socket.accept({ allowHalfOpen });
  return { socket, closed, received };
}

const textsOf = ({ received }: WorkerSocket): string[] =>
  received.map((data) => new TextDecoder().decode(readFrame(data)?.payload));

const hello = (more: object = {}): string =>
  JSON.stringify({
    version: VERSION,
    kind: "hello",
    grant: { channels: ["a"], expiresAt: null },
    clientId: "raw client",
    start: {},
    url: "https://fanwire.test/connect",
    ...more,
  });

/** Sends a forged frame to the Workers of all clients. */
const forge = (object: TestObject, frame: Uint8Array | string): Promise<void> =>
  object.inside((_, ctx) => {
    for (const socket of ctx.getWebSockets()) socket.send(frame);
  });

const BAD_FRAMES: readonly (readonly [name: string, frame: string | Uint8Array<ArrayBuffer>])[] = [
  ["an empty text", ""],
  ["a text that is not JSON", "x"],
  ["a number", "5"],
  ["null", "null"],
  ["an object without a kind", "{}"],
  ["an unknown kind", '{"kind":"other"}'],
  ["a hello of another version", hello({ version: VERSION + 1 })],
  ["bytes", new Uint8Array([1, 2, 3])],
];

for (const [name, frame] of BAD_FRAMES) {
  test(
    `object: ${name} in place of a frame closes that socket, and changes nothing else`,
    withObject({}, async (object) => {
      const client = await object.join({ channel: "a" });
      const before = await object.stub.stats();
      const early = await dial(object);
      early.socket.send(frame);
      expect(await early.closed).toBe(CLOSE_PROTOCOL_ERROR);
      expect(await object.stub.stats()).toEqual(before);

      const late = await dial(object);
      late.socket.send(hello());
      await waitUntil("it is registered", () => late.received.length > 0);
      expect((await object.stub.stats()).clients).toBe(2);
      await object.evict();
      late.socket.send(frame);
      expect(await late.closed).toBe(CLOSE_PROTOCOL_ERROR);
      late.socket.close(CLOSE_PROTOCOL_ERROR);
      await waitUntil("it is removed", async () => (await object.stub.stats()).clients === 1);
      await publish(object, ["end"], "a");
      expect(await transcriptUntil(client, "end")).toEqual(["end"]);
    }),
  );
}

test(
  "object: an ack or a refill from a socket without a registered client changes nothing",
  withObject({}, async (object) => {
    const client = await object.join({ channel: "a" });
    const before = await object.stub.stats();
    for (const frame of ['{"kind":"ack","number":1,"cursor":0}', '{"kind":"refill","cursor":0}'])
      (await dial(object)).socket.send(frame);
    await pause(50);
    expect(await object.stub.stats()).toEqual(before);
    await publish(object, ["end"], "a");
    expect(await transcriptUntil(client, "end")).toEqual(["end"]);
  }),
);

test(
  "object: an ack or a refill without a valid position closes that socket",
  withObject({}, async (object) => {
    for (const frame of ['{"kind":"refill"}', '{"kind":"refill","cursor":"x"}', '{"kind":"ack","number":1}']) {
      const raw = await dial(object);
      raw.socket.send(hello());
      await waitUntil("it is registered", () => raw.received.length > 0);
      raw.socket.send(frame);
      expect(await raw.closed, frame).toBe(CLOSE_PROTOCOL_ERROR);
    }
  }),
);

test(
  "object: an ack of another number is ignored",
  withObject({}, async (object) => {
    const client = await object.join({ channel: "a" });
    const raw = await dial(object);
    raw.socket.send(hello());
    await waitUntil("it is registered", () => raw.received.length > 0);
    for (const number of [0, 1, 7]) raw.socket.send(JSON.stringify({ kind: "ack", number, cursor: 99 }));
    await publish(object, ["1", "2"], "a");
    await client.untilData("2");
    await waitUntil("it has both", () => raw.received.length >= 2);
    expect(await object.stub.stats()).toMatchObject({ clients: 2, blocked: 0 });
  }),
);

test(
  "object: a refill in the middle of a snapshot begins again at the gap before it, with a snapshot of its own",
  withObject({ retention: { events: 1 } }, async (object) => {
    const signals: AbortSignal[] = [];
    object.reconfigure({
      retention: { events: 1 },
      snapshot: async function* ({ signal }) {
        signals.push(signal);
        if (signals.length === 1) await new Promise((resolve) => signal.addEventListener("abort", resolve));
        yield `state ${signals.length}`;
      },
    });
    const [first = ""] = await publish(object, ["1", "2", "3"], "a");
    const raw = await dial(object);
    raw.socket.send(hello({ start: { lastEventId: first } }));
    await waitUntil("the first snapshot runs", () => signals.length === 1);
    raw.socket.send(JSON.stringify({ kind: "refill", cursor: seqOf(first) }));
    await waitUntil("the last event arrived", () => textsOf(raw).some((text) => text.includes("data: 3")));
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, false]);
    const texts = textsOf(raw).map((text) => /gap|state \d|snapshot|data: 3/.exec(text)?.[0]);
    expect(texts).toEqual([undefined, "gap", "gap", "state 2", "snapshot", "data: 3"]);
    const positions = raw.received.map((data) => readFrame(data)).map((frame) => [frame?.kind, frame?.position]);
    const { chunk, held, welcome } = kinds;
    expect(positions).toEqual([
      [welcome, 0],
      [held, 1],
      [held, 1],
      [held, 1],
      [chunk, 2],
      [chunk, 3],
    ]);
  }),
);

const UNKNOWN = writeFrame({ kind: 99, previous: 0, position: 0, payload: new Uint8Array() });
const NEWER = UNKNOWN.with(0, VERSION + 1);
const BAD_OBJECT_FRAMES: readonly (readonly [name: string, frame: Uint8Array | string])[] = [
  ["a frame of another version", NEWER],
  ["a frame of an unknown kind", UNKNOWN],
  ["a frame that is too short", new Uint8Array([VERSION])],
  ["a text", "hello"],
];
for (const [name, frame] of BAD_OBJECT_FRAMES) {
  test(
    `Worker: ${name} causes a redial, and the stream continues`,
    withObject({}, async (object) => {
      const client = await object.join({ channel: "a" });
      await publish(object, ["1"], "a");
      await forge(object, frame);
      await publish(object, ["2"], "a");
      await client.untilData("2");
      await waitUntil("it has redialed", async () => (await object.stub.stats()).disconnects["client-left"] === 1);
      await publish(object, ["3"], "a");
      expect(await transcriptUntil(client, "3")).toEqual(["1", "2", "3"]);
      expect(client.control("ready")).toHaveLength(1);
      expect((await object.stub.stats()).clients).toBe(1);
    }),
  );
}

test(
  "Worker: a refusal in the middle of a stream causes a redial",
  withObject({}, async (object) => {
    const client = await object.join();
    await forge(object, writeJsonFrame(kinds.refusal, {}));
    await publish(object, ["1"]);
    expect(await transcriptUntil(client, "1")).toEqual(["1"]);
  }),
);

const payload = new TextEncoder().encode("data: forged\n\n");

test(
  "Worker: a frame that does not follow the cursor is not sent on, and the Worker requests a refill",
  withObject({}, async (object) => {
    const client = await object.join();
    await publish(object, ["1"]);
    await client.untilData("1");
    for (let round = 2; round <= 5; round++) {
      await forge(object, writeFrame({ kind: kinds.chunk, previous: 1_000, position: 1_001, payload }));
      await publish(object, [`${round}`]);
      await client.untilData(`${round}`);
    }
    expect(transcript(client)).toEqual(numbers(1, 5));
    expect(await object.stub.stats()).toMatchObject({ clients: 1, disconnects: {}, gaps: 0 });
  }),
);

test(
  "Worker: a frame from before the cursor is dropped",
  withObject({}, async (object) => {
    const client = await object.join();
    await publish(object, ["1", "2"]);
    await client.untilData("2");
    await forge(object, writeFrame({ kind: kinds.chunk, previous: 0, position: 1, payload }));
    await forge(object, writeFrame({ kind: kinds.chunk, previous: 1, position: 2, payload }));
    await publish(object, ["3"]);
    expect(await transcriptUntil(client, "3")).toEqual(numbers(1, 3));
  }),
);

for (const hibernates of [false, true]) {
  test(
    `refill: a lost frame is sent again, in its place${hibernates ? ", by the next instance as well" : ""}`,
    withObject({}, async (object) => {
      const clients = [await object.join({ channel: "a" }), await object.join({ channel: ["a", "b"] })];
      await publish(object, ["1"], "a");
      for (const client of clients) await client.untilData("1");
      const { send } = WebSocket.prototype;
      let lost = 0;
      WebSocket.prototype.send = function (this: WebSocket, frame: unknown) {
        if (typeof frame !== "string" && lost < clients.length) lost++;
        else send.call(this, frame as string);
      };
      try {
        await publish(object, ["2"], "a");
        await waitUntil("it is lost", () => lost === clients.length);
      } finally {
        WebSocket.prototype.send = send;
      }
      if (hibernates) await object.evict();
      await publish(object, ["3"], "a");
      for (const client of clients) expect(await transcriptUntil(client, "3")).toEqual(["1", "2", "3"]);
      expect(await object.stub.stats()).toMatchObject({ clients: 2, disconnects: {}, gaps: 0 });
    }),
  );
}

test(
  "disconnect(): the next instance does not restore the connection, even if the Worker left its end of the socket open",
  withObject({ inboxLinger: 0 }, async (object) => {
    const raw = await dial(object, true);
    raw.socket.send(hello());
    await waitUntil("it is registered", () => raw.received.length > 0);
    expect(await object.hub.disconnect("raw client")).toEqual({ clients: 1 });
    expect(await raw.closed).toBeGreaterThan(0);
    await object.evict();
    expect(await object.stub.stats()).toMatchObject({ clients: 0, channels: 0 });
    expect(await codeOf(object.hub.broadcastTo("raw client", "x"))).toBe("unknown-client");
  }),
);

test(
  "object: a Worker that has not heard of changed channels dials again with the old ones, and receives the new ones and their events",
  withObject({}, async (object) => {
    const first = await dial(object);
    first.socket.send(hello());
    await waitUntil("it is registered", () => first.received.length > 0);
    const welcome = readJsonFrame<Welcome>(readFrame(first.received[0]) as Frame);
    await object.hub.subscribe("raw client", "new");
    first.socket.close(1000);
    await object.untilNoClients();
    const again = await dial(object);
    const { connectionId, secret } = welcome;
    again.socket.send(hello({ previous: { connectionId, connectedAt: Date.now(), secret } }));
    await waitUntil("it is registered", () => again.received.length > 0);
    await publish(object, ["for the new channel"], "new");
    const texts = (): string[] => again.received.map((data) => new TextDecoder().decode(data));
    await waitUntil("the event arrives", () => texts().some((text) => text.includes("for the new channel")));
    const notices = again.received.map((data) => readFrame(data)).filter((frame) => frame?.kind === kinds.channels);
    expect(notices.map((frame) => readJsonFrame(frame as Frame))).toEqual([{ channels: ["a", "new"] }]);
    // The page of that stream still has its secret.
    const body = new URLSearchParams({ secret: secret as string, channel: "more" });
    const response = await object.hub.fetch(new Request("https://fanwire.test/subscribe", { method: "POST", body }));
    expect(response.status).toBe(200);
    again.socket.close(1000);
  }),
);
