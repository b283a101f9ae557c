import fc from "fast-check";
import { expect, test } from "vitest";
import { type Connection, gapOf, isData, seqOf } from "../support/clients/connection.ts";
import { findFalseGaps, findFaults, type PublishedEvent, type ReceivedItem } from "../support/oracle/oracle.ts";
import { pause, TestObject } from "./support/test-object.ts";

// Simulates random histories of an object: publishes, hibernation, crashes and alarms, with readers that stall, leave and come back. The
// oracle knows only the published events and what each reader received. A failure prints its seed and the shortest history that shows it.

const NAMES = ["a", "b", "c"];
/** Bytes that an event costs in the log, besides its data. */
const COST = 256 + 40;

type Step =
  | { readonly do: "publish"; readonly channels: readonly string[]; readonly times: number; readonly size: number }
  | { readonly do: "read"; readonly reader: number; readonly chunks: number }
  | { readonly do: "leave"; readonly reader: number }
  | { readonly do: "hibernate" | "crash" | "alarm" | "pause" };

interface History {
  readonly events: number;
  readonly logEvents: number;
  readonly readers: readonly (readonly string[])[];
  readonly steps: readonly Step[];
}

const READERS = 3;
/** How long a reader may take until it has the last event: far longer than any does. */
const LAST_EVENT_MS = 15_000;

function histories(overruns: boolean): fc.Arbitrary<History> {
  const reader = fc.nat({ max: READERS - 1 });
  const publish = fc.record({
    do: fc.constant("publish" as const),
    channels: fc.subarray(NAMES, { minLength: 1 }),
    times: fc.integer({ min: 1, max: overruns ? 12 : 4 }),
    size: fc.constantFrom(10, 10, 4_000, 40_000),
  });
  const read = fc.record({ do: fc.constant("read" as const), reader, chunks: fc.integer({ min: 1, max: 4 }) });
  const only = <T extends "hibernate" | "crash" | "alarm" | "pause">(name: T) => fc.record({ do: fc.constant(name) });
  const step: fc.Arbitrary<Step> = fc.oneof(
    { weight: 6, arbitrary: publish },
    { weight: 5, arbitrary: read },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("leave" as const), reader }) },
    { weight: 3, arbitrary: only("hibernate") },
    { weight: 1, arbitrary: only("crash") },
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

/** A reader over all of its connections. Like an EventSource, it comes back with the last id it received. */
class Reader {
  readonly items: ReceivedItem[] = [];
  readonly channels: readonly string[];
  start = 0;
  floor = 0;
  readonly #object: TestObject;
  #connection: Connection | undefined;
  #collected = 0;
  #lastEventId: string | undefined;
  readyEvents = 0;

  constructor(object: TestObject, channels: readonly string[]) {
    this.#object = object;
    this.channels = channels;
  }

  async connect(): Promise<void> {
    if (this.#connection) return;
    const id = this.#lastEventId;
    this.#connection = await this.#object.connect({
      channel: this.channels,
      ...(id === undefined ? {} : { lastEventId: id }),
    });
    this.#collected = 0;
    await this.read(1);
  }

  /** Reads up to `chunks` chunks, as long as one arrives in time. */
  async read(chunks: number): Promise<void> {
    await this.connect();
    const connection = this.#connection as Connection;
    for (let chunk = 0; chunk < chunks; chunk++) {
      const result = await Promise.race([connection.read(), pause(30).then(() => "nothing" as const)]);
      if (result === false) throw new Error("a stream ended");
      this.#collect(connection);
      if (result === "nothing") return;
    }
  }

  #collect(connection: Connection): void {
    for (; this.#collected < connection.events.length; this.#collected++) {
      const event = connection.events[this.#collected];
      if (!event) continue;
      const { id = "" } = event;
      if (event.event === "fanwire-ready" && this.#lastEventId === undefined) this.start = this.floor = seqOf(id);
      if (event.event === "fanwire-ready" && this.#collected > 0) this.readyEvents++;
      if (isData(event)) this.items.push({ type: "event", id, data: event.data });
      if (event.event === "fanwire-gap") this.items.push({ type: "gap", id, ...gapOf(event) });
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

/** Runs a history. Returns the faults that the oracle finds. */
async function simulate({ events, logEvents, readers: plans, steps }: History): Promise<string[]> {
  const logBytes = logEvents === Infinity ? 32 * 1024 * 1024 : logEvents * (COST + 2_000);
  // No timeout, because a timer would delay the end of an instance.
  const object = new TestObject({ retention: { events }, logBytes, timeout: Infinity, inboxLinger: 0 });
  const published: PublishedEvent[] = [];
  const publish = async (channels: readonly string[], data: string): Promise<void> => {
    const { id } = await object.hub.broadcast(data, { channels });
    published.push({
      channels,
      data,
      seq: seqOf(id),
      cost: COST + 256 * Math.max(0, channels.length - 1) + data.length,
    });
  };
  const readers = plans.map((channels) => new Reader(object, channels));
  // A barred id is kept all the time: without it, an alarm right after a crash could find the object empty, and a new epoch would begin.
  await object.hub.disconnect("nobody", { blockFor: 3_600_000 });
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
      await object.evict();
    } else if (step.do === "crash") {
      await object.crash();
    } else if (step.do === "alarm") {
      await object.runAlarm();
    } else {
      await pause(20);
    }
  }
  for (const reader of readers) await reader.connect();
  await publish(NAMES, "the end");
  const last = published.at(-1)?.seq ?? 0;
  const faults: string[] = [];
  for (const [index, reader] of readers.entries()) {
    for (const end = Date.now() + LAST_EVENT_MS; reader.position < last && Date.now() < end; ) await reader.read(20);
    if (reader.position < last) faults.push(`reader ${index}: stopped at ${reader.position}, before ${last}`);
    if (reader.readyEvents > 0) faults.push(`reader ${index}: received a second fanwire-ready`);
    const bounds = { events, logBytes, dropsChannels: false };
    for (const fault of [...findFaults(published, reader, bounds), ...findFalseGaps(published, reader)])
      faults.push(`reader ${index}: ${fault}`);
  }
  await object.disconnectClients();
  return faults;
}

function check(title: string, overruns: boolean, seed: number, numRuns: number): void {
  test(title, { timeout: 110_000 }, async () => {
    const property = fc.asyncProperty(histories(overruns), async (history) => {
      expect(await simulate(history)).toEqual([]);
    });
    await fc.assert(property, { seed, numRuns, endOnFailure: false, interruptAfterTimeLimit: 90_000 });
  });
}

check(
  "simulation: each event arrives once and in order, or is in a gap; a retained event is never in one",
  false,
  1,
  60,
);
check("simulation: the same holds for a log that overruns its readers", true, 2, 60);
