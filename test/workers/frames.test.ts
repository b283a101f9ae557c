import { expect, test } from "vitest";
import { CLOSE_PROTOCOL_ERROR, kinds, VERSION, writeFrame, writeJsonFrame } from "../../src/workers/protocol.ts";
import { codeOf } from "../support/test-broker.ts";
import { numbers, pause, type Room, room, until } from "./support/room.ts";
import { publish, story, told } from "./support/story.ts";

// What the Worker and the object say to each other, where it is not what they should.

interface Line {
  readonly socket: WebSocket;
  readonly closed: Promise<number>;
  readonly received: ArrayBuffer[];
}

/** A socket to the object, as a Worker of fanwire's has it; one that is half open is not closed because the object's end is. */
async function dial(room: Room, allowHalfOpen = false): Promise<Line> {
  const { value } = await room.stub.serve({ type: "secret" });
  const { webSocket } = await room.stub.fetch("https://fanwire.invalid/", {
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

const hello = (more: object = {}): string =>
  JSON.stringify({
    version: VERSION,
    kind: "hello",
    grant: { channels: ["a"], expiresAt: null },
    clientId: "by hand",
    start: {},
    url: "https://fanwire.test/connect",
    ...more,
  });

/** Sends through the object's end of the socket of a client. */
const forge = (room: Room, frame: Uint8Array | string): Promise<void> =>
  room.inside((_, ctx) => {
    for (const socket of ctx.getWebSockets()) socket.send(frame);
  });

const STRANGE: readonly (readonly [what: string, frame: string | Uint8Array<ArrayBuffer>])[] = [
  ["nothing", ""],
  ["no JSON", "x"],
  ["a number", "5"],
  ["null", "null"],
  ["an object without a kind", "{}"],
  ["a kind that is none", '{"kind":"other"}'],
  ["a hello of another version", hello({ version: VERSION + 1 })],
  ["bytes", new Uint8Array([1, 2, 3])],
];

for (const [what, frame] of STRANGE) {
  test(
    `${what} instead of a frame closes that socket, and changes nothing else`,
    room({}, async (room) => {
      const client = await room.join({ channel: "a" });
      const before = await room.stub.stats();
      const early = await dial(room);
      early.socket.send(frame);
      expect(await early.closed).toBe(CLOSE_PROTOCOL_ERROR);
      expect(await room.stub.stats()).toEqual(before);

      const late = await dial(room);
      late.socket.send(hello());
      await until("it is welcome", () => late.received.length > 0);
      expect((await room.stub.stats()).clients).toBe(2);
      await room.evict();
      late.socket.send(frame);
      expect(await late.closed).toBe(CLOSE_PROTOCOL_ERROR);
      late.socket.close(CLOSE_PROTOCOL_ERROR);
      await until("it is gone", async () => (await room.stub.stats()).clients === 1);
      await publish(room, ["end"], "a");
      expect(await story(client, "end")).toEqual(["end"]);
    }),
  );
}

test(
  "an acknowledgement or a refill of a socket that nobody is registered at changes nothing",
  room({}, async (room) => {
    const client = await room.join({ channel: "a" });
    const before = await room.stub.stats();
    for (const frame of ['{"kind":"ack","number":1,"cursor":0}', '{"kind":"refill","cursor":0}'])
      (await dial(room)).socket.send(frame);
    await pause(50);
    expect(await room.stub.stats()).toEqual(before);
    await publish(room, ["end"], "a");
    expect(await story(client, "end")).toEqual(["end"]);
  }),
);

test(
  "a refill or an acknowledgement that says no position closes that socket: it would be read as any",
  room({}, async (room) => {
    for (const frame of ['{"kind":"refill"}', '{"kind":"refill","cursor":"x"}', '{"kind":"ack","number":1}']) {
      const line = await dial(room);
      line.socket.send(hello());
      await until("it is welcome", () => line.received.length > 0);
      line.socket.send(frame);
      expect(await Promise.race([line.closed, pause(500).then(() => frame)])).toBe(CLOSE_PROTOCOL_ERROR);
    }
  }),
);

test(
  "an acknowledgement of something else is ignored",
  room({}, async (room) => {
    const client = await room.join({ channel: "a" });
    const line = await dial(room);
    line.socket.send(hello());
    await until("it is welcome", () => line.received.length > 0);
    for (const number of [0, 1, 7]) line.socket.send(JSON.stringify({ kind: "ack", number, cursor: 99 }));
    await publish(room, ["1", "2"], "a");
    await client.untilData("2");
    await until("it has both", () => line.received.length >= 2);
    expect(await room.stub.stats()).toMatchObject({ clients: 2, blocked: 0 });
  }),
);

const UNKNOWN = writeFrame({ kind: 99, previous: 0, position: 0, payload: new Uint8Array() });
const NEWER = UNKNOWN.with(0, VERSION + 1);
const TO_WORKER: readonly (readonly [what: string, frame: Uint8Array | string])[] = [
  ["a frame of another version", NEWER],
  ["a frame of an unknown kind", UNKNOWN],
  ["a frame that is too short", new Uint8Array([VERSION])],
  ["a text that is none", "hello"],
];
for (const [what, frame] of TO_WORKER) {
  test(
    `${what} has the Worker dial again, and the stream goes on`,
    room({}, async (room) => {
      const client = await room.join({ channel: "a" });
      await publish(room, ["1"], "a");
      await forge(room, frame);
      await publish(room, ["2"], "a");
      await client.untilData("2");
      await until("it dialled", async () => (await room.stub.stats()).disconnects["client-left"] === 1);
      await publish(room, ["3"], "a");
      expect(await story(client, "3")).toEqual(["1", "2", "3"]);
      expect(client.control("ready")).toHaveLength(1);
      expect((await room.stub.stats()).clients).toBe(1);
    }),
  );
}

test(
  "a welcome in the middle of a stream has the Worker dial again",
  room({}, async (room) => {
    const client = await room.join();
    await forge(room, writeJsonFrame(kinds.refusal, {}));
    await publish(room, ["1"]);
    expect(await story(client, "1")).toEqual(["1"]);
  }),
);

const payload = new TextEncoder().encode("data: forged\n\n");

test(
  "a frame that does not follow what came is not given on: the Worker asks for what is missing",
  room({}, async (room) => {
    const client = await room.join();
    await publish(room, ["1"]);
    await client.untilData("1");
    for (let round = 2; round <= 5; round++) {
      await forge(room, writeFrame({ kind: kinds.chunk, previous: 1_000, position: 1_001, payload }));
      await publish(room, [`${round}`]);
      await client.untilData(`${round}`);
    }
    expect(told(client)).toEqual(numbers(1, 5));
    expect(await room.stub.stats()).toMatchObject({ clients: 1, disconnects: {}, gaps: 0 });
  }),
);

test(
  "a frame of before what came is dropped",
  room({}, async (room) => {
    const client = await room.join();
    await publish(room, ["1", "2"]);
    await client.untilData("2");
    await forge(room, writeFrame({ kind: kinds.chunk, previous: 0, position: 1, payload }));
    await forge(room, writeFrame({ kind: kinds.chunk, previous: 1, position: 2, payload }));
    await publish(room, ["3"]);
    expect(await story(client, "3")).toEqual(numbers(1, 3));
  }),
);

for (const sleeps of [false, true]) {
  test(
    `a frame that was lost on its way is sent again, in its place${sleeps ? ", also by the next instance" : ""}`,
    room({}, async (room) => {
      const clients = [await room.join({ channel: "a" }), await room.join({ channel: ["a", "b"] })];
      await publish(room, ["1"], "a");
      for (const client of clients) await client.untilData("1");
      const { send } = WebSocket.prototype;
      let lost = 0;
      WebSocket.prototype.send = function (this: WebSocket, frame: unknown) {
        if (typeof frame !== "string" && lost < clients.length) lost++;
        else send.call(this, frame as string);
      };
      try {
        await publish(room, ["2"], "a");
        await until("it is lost", () => lost === clients.length);
      } finally {
        WebSocket.prototype.send = send;
      }
      if (sleeps) await room.evict();
      await publish(room, ["3"], "a");
      for (const client of clients) expect(await story(client, "3")).toEqual(["1", "2", "3"]);
      expect(await room.stub.stats()).toMatchObject({ clients: 2, disconnects: {}, gaps: 0 });
    }),
  );
}

test(
  "who was disconnected is not taken for a client by the next instance, also while its Worker did not close its end",
  room({ inboxLinger: 0 }, async (room) => {
    const line = await dial(room, true);
    line.socket.send(hello());
    await until("it is welcome", () => line.received.length > 0);
    expect(await room.hub.disconnect("by hand")).toEqual({ clients: 1 });
    expect(await line.closed).toBeGreaterThan(0);
    await room.evict();
    expect(await room.stub.stats()).toMatchObject({ clients: 0, channels: 0 });
    expect(await codeOf(room.hub.broadcastTo("by hand", "x"))).toBe("unknown-client");
  }),
);
