import fc from "fast-check";
import { expect, test } from "vitest";
import { type Connection, gapOf, isData, seqOf } from "../support/clients/connection.ts";
import { judge, judgeAlarms, type Seen, type Told } from "../support/oracle/oracle.ts";
import { pause, Room } from "./support/room.ts";

// Random lives of an object: it is published to, hibernates, crashes, is woken by its alarm; readers stall, leave and come back. The oracle
// knows only what was published and what was seen. A failure prints its seed and the shortest life that shows it.

const NAMES = ["a", "b", "c"];
/** What an event costs the log beside its data. */
const COST = 256 + 40;

type Step =
  | { readonly do: "publish"; readonly channels: readonly string[]; readonly times: number; readonly size: number }
  | { readonly do: "read"; readonly reader: number; readonly chunks: number }
  | { readonly do: "leave"; readonly reader: number }
  | { readonly do: "hibernate" | "lose" | "alarm" | "pause" };

interface Life {
  readonly events: number;
  readonly logEvents: number;
  readonly readers: readonly (readonly string[])[];
  readonly steps: readonly Step[];
}

const READERS = 3;

function lives(overruns: boolean): fc.Arbitrary<Life> {
  const reader = fc.nat({ max: READERS - 1 });
  const publish = fc.record({
    do: fc.constant("publish" as const),
    channels: fc.subarray(NAMES, { minLength: 1 }),
    times: fc.integer({ min: 1, max: overruns ? 12 : 4 }),
    size: fc.constantFrom(10, 10, 4_000, 40_000),
  });
  const read = fc.record({ do: fc.constant("read" as const), reader, chunks: fc.integer({ min: 1, max: 4 }) });
  const only = <T extends "hibernate" | "lose" | "alarm" | "pause">(name: T) => fc.record({ do: fc.constant(name) });
  const step: fc.Arbitrary<Step> = fc.oneof(
    { weight: 6, arbitrary: publish },
    { weight: 5, arbitrary: read },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("leave" as const), reader }) },
    { weight: 3, arbitrary: only("hibernate") },
    { weight: 1, arbitrary: only("lose") },
    { weight: 1, arbitrary: only("alarm") },
    { weight: 2, arbitrary: only("pause") },
  );
  return fc.record({
    events: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.constant(Infinity)),
    logEvents: overruns ? fc.integer({ min: 2, max: 12 }) : fc.constant(Infinity),
    readers: fc.array(fc.subarray(NAMES, { minLength: 1 }), { minLength: READERS, maxLength: READERS }),
    steps: fc.array(step, { minLength: 1, maxLength: 40 }),
  });
}

/** A reader over all of its connections: like an EventSource it comes back with the last id it saw. */
class Reader {
  readonly seen: Seen[] = [];
  readonly channels: readonly string[];
  start = 0;
  floor = 0;
  readonly #room: Room;
  #connection: Connection | undefined;
  #looked = 0;
  #lastEventId: string | undefined;
  readies = 0;

  constructor(room: Room, channels: readonly string[]) {
    this.#room = room;
    this.channels = channels;
  }

  async connect(): Promise<void> {
    if (this.#connection) return;
    const id = this.#lastEventId;
    this.#connection = await this.#room.connect({
      channel: this.channels,
      ...(id === undefined ? {} : { lastEventId: id }),
    });
    this.#looked = 0;
    await this.read(1);
  }

  /** Reads so many chunks, as far as they come. */
  async read(chunks: number): Promise<void> {
    await this.connect();
    const connection = this.#connection as Connection;
    for (let chunk = 0; chunk < chunks; chunk++) {
      const came = await Promise.race([connection.read(), pause(30).then(() => "nothing" as const)]);
      if (came === false) throw new Error("a stream has ended");
      this.#look(connection);
      if (came === "nothing") return;
    }
  }

  #look(connection: Connection): void {
    for (; this.#looked < connection.events.length; this.#looked++) {
      const event = connection.events[this.#looked];
      if (!event) continue;
      const { id = "" } = event;
      if (event.event === "fanwire-ready" && this.#lastEventId === undefined) this.start = this.floor = seqOf(id);
      if (event.event === "fanwire-ready" && this.#looked > 0) this.readies++;
      if (isData(event)) this.seen.push({ type: "event", id, data: event.data });
      if (event.event === "fanwire-gap") this.seen.push({ type: "gap", id, ...gapOf(event) });
      if (id !== "") this.#lastEventId = id;
    }
  }

  async leave(): Promise<void> {
    await this.#connection?.leave();
    this.#connection = undefined;
  }

  get position(): number {
    return seqOf(this.#lastEventId);
  }
}

async function live({ events, logEvents, readers: plans, steps }: Life): Promise<string[]> {
  const logBytes = logEvents === Infinity ? 32 * 1024 * 1024 : logEvents * (COST + 2_000);
  // No timer may hold up what ends an instance.
  const room = new Room({ retention: { events }, logBytes, timeout: Infinity, inboxLinger: 0 });
  const published: Told[] = [];
  const publish = async (channels: readonly string[], data: string): Promise<void> => {
    const { id } = await room.hub.broadcast(data, { channels: channels });
    published.push({ channels, data, seq: seqOf(id), cost: COST + data.length });
  };
  const readers = plans.map((channels) => new Reader(room, channels));
  // Something that is kept all the time: an object that its alarm finds empty in the moment after a crash begins anew.
  await room.hub.disconnect("nobody", { blockFor: 3_600_000 });
  for (const reader of readers) await reader.connect();
  for (const step of steps) {
    const reader = readers["reader" in step ? step.reader : 0] as Reader;
    if (step.do === "publish") {
      for (let time = 0; time < step.times; time++)
        await publish(step.channels, `${published.length} ${"x".repeat(step.size)}`);
    } else if (step.do === "read") {
      await reader.read(step.chunks);
    } else if (step.do === "leave") {
      await reader.leave();
    } else if (step.do === "hibernate") {
      await room.evict();
    } else if (step.do === "lose") {
      await room.abort();
    } else if (step.do === "alarm") {
      await room.alarm();
    } else {
      await pause(20);
    }
  }
  for (const reader of readers) await reader.connect();
  await publish(NAMES, "the end");
  const last = published.at(-1)?.seq ?? 0;
  const faults: string[] = [];
  for (const [index, reader] of readers.entries()) {
    for (let tries = 0; tries < 60 && reader.position < last; tries++) await reader.read(20);
    if (reader.position < last) faults.push(`reader ${index}: is stuck at ${reader.position} before ${last}`);
    if (reader.readies > 0) faults.push(`reader ${index}: was told again that it is ready`);
    const bounds = { events, logBytes, forgets: false };
    for (const fault of [...judge(published, reader, bounds), ...judgeAlarms(published, reader)])
      faults.push(`reader ${index}: ${fault}`);
  }
  await room.end();
  return faults;
}

function check(title: string, overruns: boolean, seed: number, numRuns: number): void {
  test(title, { timeout: 110_000 }, async () => {
    const property = fc.asyncProperty(lives(overruns), async (life) => {
      expect(await live(life)).toEqual([]);
    });
    await fc.assert(property, { seed, numRuns, endOnFailure: false, interruptAfterTimeLimit: 90_000 });
  });
}

check("each event comes once, in order, or is in a gap, and what retention covers is never in one", false, 1, 60);
check("of a log that is overrun as well", true, 2, 60);
