import fc from "fast-check";
import type { Broker } from "../../src/index.ts";
import { seqOf } from "./connection.ts";
import { type Beginning, inboxName, LineageReader } from "./lineage.ts";
import { judge, judgeAlarms, type Told } from "./oracle.ts";
import { type Scene, turn } from "./scene.ts";
import { slowEngine } from "./slow-engine.ts";

/** What a random world may do beside what every one does. */
export interface Kinds {
  /** The log may be too small for what is published in one turn. */
  readonly overruns?: boolean;
  readonly forgets?: boolean;
  /** The engine answers late. */
  readonly slow?: boolean;
  /** Events are so large that a chunk holds few of them. */
  readonly large?: boolean;
}

type Step =
  | { readonly do: "publish"; readonly channels: readonly string[]; readonly size: number; readonly times: number }
  | { readonly do: "send"; readonly reader: number; readonly times: number }
  | { readonly do: "read"; readonly reader: number; readonly chunks: number }
  | { readonly do: "look"; readonly reader: number; readonly events: number }
  /** Comes back, reads a little, and leaves in the middle of it. */
  | { readonly do: "glimpse"; readonly reader: number; readonly chunks: number; readonly events: number }
  | { readonly do: "leave"; readonly reader: number; readonly other: boolean }
  | { readonly do: "turn" };

interface ReaderPlan {
  readonly kind: "client" | "listener";
  readonly id: string;
  readonly channels: readonly string[];
  readonly beginning: Beginning;
}

export interface World {
  readonly events: number;
  readonly logEvents: number;
  readonly maxChannels: number;
  readonly unit: number;
  readonly slow: boolean;
  readonly readers: readonly ReaderPlan[];
  readonly steps: readonly Step[];
}

const NAMES = ["a", "b", "c"];
/** About what an event costs the log beside its padding. */
const COST = 256 + 40;
/** Turns without anything new after which a reader is taken to be stuck. */
const PATIENCE = 300;

export function worldArbitrary({ overruns, forgets, slow, large }: Kinds): fc.Arbitrary<World> {
  const reader = fc.nat({ max: 3 });
  const times = overruns ? fc.integer({ min: 1, max: 12 }) : fc.integer({ min: 1, max: 3 });
  const step: fc.Arbitrary<Step> = fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        do: fc.constant("publish" as const),
        channels: fc.subarray(NAMES),
        size: fc.nat({ max: 3 }),
        times,
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("send" as const), reader, times }) },
    {
      weight: 4,
      arbitrary: fc.record({ do: fc.constant("read" as const), reader, chunks: fc.integer({ min: 1, max: 4 }) }),
    },
    {
      weight: 3,
      arbitrary: fc.record({ do: fc.constant("look" as const), reader, events: fc.integer({ min: 1, max: 9 }) }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("leave" as const), reader, other: fc.boolean() }) },
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant("glimpse" as const),
        reader,
        chunks: fc.integer({ min: 1, max: 4 }),
        events: fc.nat({ max: 5 }),
      }),
    },
    { weight: 3, arbitrary: fc.constant({ do: "turn" as const }) },
  );
  const plan = fc.record({
    kind: fc.oneof(
      { weight: 3, arbitrary: fc.constant("client" as const) },
      { weight: 1, arbitrary: fc.constant("listener" as const) },
    ),
    id: fc.constantFrom("one", "two"),
    channels: fc.subarray(NAMES),
    beginning: fc.oneof(
      { weight: 4, arbitrary: fc.constant("live" as const) },
      { weight: 1, arbitrary: fc.constant("earliest" as const) },
      { weight: 1, arbitrary: fc.constant("foreign" as const) },
    ),
  });
  return fc.record({
    events: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.constant(Infinity)),
    logEvents: overruns ? fc.integer({ min: 2, max: 12 }) : fc.constant(Infinity),
    maxChannels: forgets ? fc.integer({ min: 2, max: 6 }) : fc.constant(1_000),
    unit: fc.constant(large ? 12_000 : 10),
    slow: fc.constant(slow ?? false),
    readers: fc.array(plan, { minLength: 4, maxLength: 4 }),
    steps: fc.array(step, { minLength: 1, maxLength: 60 }),
  });
}

/** What was wrong with what the readers saw. */
export interface Faults {
  readonly losses: readonly string[];
  readonly alarms: readonly string[];
}

/** Lives through a world. */
export async function runModel(stage: Scene, world: World): Promise<Faults> {
  const { events, logEvents, maxChannels, unit, slow } = world;
  const logBytes = logEvents === Infinity ? 32 * 1024 * 1024 : logEvents * (COST + unit);
  const memory = stage.engine({ retention: { events, age: Infinity }, logBytes, maxChannels });
  const engine = slow ? slowEngine(memory, turn) : memory;
  const options = { engine, timeout: Infinity, heartbeat: Infinity, inboxLinger: Infinity };
  const brokers: [Broker, Broker] = [stage.broker(options), stage.broker(options)];
  const publishing: Promise<Told>[] = [];
  let done = 0;

  const publish = (told: Omit<Told, "seq" | "cost">, published: Promise<{ id: string }>): void => {
    const known = published.then(({ id }) => {
      done++;
      return { ...told, seq: seqOf(id), cost: COST + told.data.length };
    });
    // It is awaited in the end; until then a failure is nobody's.
    known.catch(() => undefined);
    publishing.push(known);
  };
  const broadcast = (channel: readonly string[], data: string, broker: Broker): void =>
    publish(
      { channels: channel.length > 0 ? channel : ["fanwire-common"], data },
      broker.broadcast(data, channel.length > 0 ? { channel } : {}),
    );

  const counts = (): { called: number; done: number } => ({ called: publishing.length, done });
  const readers = world.readers.map(({ kind, id, channels, beginning }) =>
    kind === "client"
      ? LineageReader.client(brokers[0], id, channels, beginning, counts)
      : LineageReader.listener(brokers[0], channels, beginning, counts),
  );
  for (const reader of readers) await reader.connect();

  for (const step of world.steps) {
    const index = "reader" in step ? step.reader : 0;
    const reader = readers[index] as LineageReader;
    switch (step.do) {
      case "publish":
        for (let time = 0; time < step.times; time++) {
          const data = `${publishing.length} ${"x".repeat(step.size * unit)}`;
          broadcast(step.channels, data, brokers[publishing.length % 2] as Broker);
        }
        break;
      case "send": {
        const { kind, id } = world.readers[index] as ReaderPlan;
        if (kind === "listener") break;
        for (let time = 0; time < step.times; time++) {
          const data = `${publishing.length} for ${id}`;
          publish({ channels: [inboxName(id)], data }, reader.home.broadcastTo(id, data));
        }
        break;
      }
      case "read":
        await reader.connect();
        reader.want(step.chunks);
        break;
      case "look":
        reader.look(step.events);
        break;
      case "glimpse":
        await reader.connect();
        reader.want(step.chunks);
        await turn();
        reader.look(step.events);
        await reader.drop();
        break;
      case "leave":
        await reader.drop();
        if (step.other) reader.broker = brokers[reader.broker === brokers[0] ? 1 : 0];
        break;
      default:
        await turn();
    }
  }

  // All come back, and read until they have what is published last.
  for (const reader of readers) await reader.connect();
  await Promise.all(publishing);
  for (const channel of [[], NAMES]) broadcast(channel, `the end of ${channel.join(" ")}`, brokers[0]);
  const published = (await Promise.all(publishing)).sort((a, b) => a.seq - b.seq);
  const losses: string[] = [];
  const alarms: string[] = [];
  for (const [index, reader] of readers.entries()) {
    const last = published.findLast(({ channels }) => channels.some((name) => reader.channels.includes(name)));
    // What it saw last is that event, or a gap that reaches as far.
    const isThere = (): boolean => reader.seen.some(({ id }) => seqOf(id) >= (last?.seq ?? 0));
    for (let turns = 0, more = 3; turns < PATIENCE && more > 0; turns++) {
      reader.want(1);
      await turn();
      reader.look(Infinity);
      // Something may stand behind it at the same position.
      if (isThere()) more--;
    }
    if (!isThere()) losses.push(`reader ${index}: is stuck before the last event`);
    const bounds = { events, logBytes, forgets: maxChannels < 1_000 };
    losses.push(...judge(published, reader, bounds).map((fault) => `reader ${index}: ${fault}`));
    alarms.push(...judgeAlarms(published, reader).map((fault) => `reader ${index}: ${fault}`));
    await reader.drop();
  }
  for (const broker of brokers) await broker.close();
  return { losses, alarms };
}
