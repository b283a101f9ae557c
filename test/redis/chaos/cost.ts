/**
 * Measures the cost of Redis: publishing compared with the script alone, deliveries and latency compared with the memory engine, and the commands
 * that clients cause when all of them come back at once.
 *
 *     node test/redis/chaos/cost.ts [--seconds 3] [--rounds 3] [--clients 1000]
 */
import { parseArgs } from "node:util";
import { Redis } from "ioredis";
import { createBroker } from "../../../src/index.ts";
import { redisEngine } from "../../../src/redis/index.ts";
import type { Phase } from "../../bench/loads/events.ts";
import { measure } from "../../bench/measure.ts";
import { killAllAtExit } from "../../bench/processes.ts";
import { startRedis } from "../../bench/redis.ts";
import { median, table } from "../../bench/statistics.ts";
import { SocketClient } from "../../support/clients/socket-client.ts";
import { Instance } from "./instance.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "3" },
    rounds: { type: "string", default: "3" },
    clients: { type: "string", default: "1000" },
  },
});
const seconds = Number(values.seconds);
const rounds = Number(values.rounds);
const clients = Number(values.clients);
const DATA = "x".repeat(120);
const CHANNELS_EACH = 20;
const CHANNELS = 200;

killAllAtExit();
const url = await startRedis();
process.env.REDIS_URL = url;
const admin = new Redis(url);

/** Repeats an action, several at a time. Returns how often it was done per second. */
async function measureRate(inFlight: number, act: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  const end = start + seconds * 1000;
  let count = 0;
  const repeat = async (): Promise<void> => {
    while (performance.now() < end) {
      await act();
      count++;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, repeat));
  return (count / (performance.now() - start)) * 1000;
}

/** The index of the argument of an append command that must grow: the number of the append. */
const NUMBER = 7;

/** Measures publishes per second of a broker in this process, and of its script alone through the same connection. */
async function measurePublishing(inFlight: number): Promise<{ readonly broker: number; readonly bare: number }> {
  await admin.flushall();
  const client = new Redis(url);
  const commands: string[][] = [];
  const call = client.call.bind(client) as (...command: string[]) => Promise<unknown>;
  let isRecording = true;
  // The command that the engine sends for a publish is later sent again without the engine.
  client.call = ((...command: string[]) => {
    if (isRecording) commands.push(command.flat());
    return call(...command);
  }) as typeof client.call;
  const broker = createBroker({ engine: redisEngine({ client, prefix: "cost" }) });
  await broker.broadcast(DATA);
  commands.length = 0;
  await broker.broadcast(DATA);
  const append = commands.find((command) => command.some((part) => part.includes(DATA)));
  if (!append) throw new Error("publishing: no command contains the event");
  isRecording = false;
  let number = Number(append[NUMBER]);
  if (!(number > 0)) throw new Error(`publishing: argument ${NUMBER} is not a number, but ${append[NUMBER]}`);
  const first = number;
  let count = 0;
  const rate = await measureRate(inFlight, () => {
    count++;
    return broker.broadcast(DATA);
  });
  number = first + count;
  const bare = await measureRate(inFlight, async () => {
    const command = [...append];
    command[NUMBER] = String(++number);
    const answer = (await call(...command)) as string[];
    if (answer[0] !== "ok") throw new Error(`publishing: the script answered ${answer}`);
  });
  await broker.close();
  client.disconnect();
  return { broker: rate, bare };
}

/** Measures a server on Bun: deliveries with 1 and with 8 publishes in flight, and latency at 25 publishes a second. */
async function measureDelivery(file: string): Promise<readonly Phase[]> {
  const patterns = [
    { inFlight: 1, rate: 0 },
    { inFlight: 8, rate: 0 },
    { inFlight: 1, rate: 25 },
  ];
  const { phases } = await measure(
    { command: ["bun"], file },
    { kind: "events", clients, audience: "all", stalled: 0, eventLength: 120, warmup: 1, seconds, patterns },
  );
  return phases;
}

/** Returns how often each command was called until now, including calls by scripts. */
async function commandCounts(): Promise<ReadonlyMap<string, number>> {
  const all = [...(await admin.info("commandstats")).matchAll(/^cmdstat_([^:]+):calls=(\d+)/gm)];
  return new Map(all.map(([, name = "", count]) => [name, Number(count)]));
}

/** Counts the commands that the clients of one instance cause when all of them come back at once. */
async function measureReconnects(): Promise<ReadonlyMap<string, number>> {
  await admin.flushall();
  const instance = await Instance.start("bun", { REDIS_URL: url, PREFIX: "cost" });
  const name = (index: number): string => `channel-${index % CHANNELS}`;
  const connectAll = async (ids: readonly (string | undefined)[]): Promise<SocketClient[]> => {
    const connecting = ids.map((id, index) => {
      const query = Array.from({ length: CHANNELS_EACH }, (_, step) => `&channel=${name(index * 7 + step)}`).join("");
      const headers: Record<string, string> = id === undefined ? {} : { "last-event-id": id };
      return new SocketClient(`${instance.url}/connect?id=client-${index}${query}`, headers);
    });
    return Promise.all(connecting.map((client) => client.untilReady()));
  };
  const publishToAll = async (): Promise<void> => {
    for (let index = 0; index < CHANNELS; index++) {
      const headers = { authorization: "Bearer chaos" };
      const response = await fetch(`${instance.url}/broadcast?channel=${name(index)}`, {
        method: "POST",
        body: DATA,
        headers,
      });
      if (response.status !== 200) throw new Error(`reconnects: a publish was answered ${response.status}`);
    }
  };
  const noIds = Array.from({ length: clients }, () => undefined);
  const first = await connectAll(noIds);
  await publishToAll();
  await Promise.all(first.map((client) => client.until(({ data }) => data.length === CHANNELS_EACH)));
  const ids = first.map(({ lastEventId }) => lastEventId);
  for (const client of first) client.leave();
  await Promise.all(first.map((client) => client.untilEnded()));
  await publishToAll();
  const before = await commandCounts();
  const second = await connectAll(ids);
  await Promise.all(second.map((client) => client.until(({ data }) => data.length === CHANNELS_EACH)));
  const after = await commandCounts();
  for (const client of second) client.leave();
  await instance.kill();
  const growth = [...after].map(([command, count]) => [command, count - (before.get(command) ?? 0)] as const);
  return new Map(growth.filter(([command, count]) => count > 0 && command !== "info"));
}

const format = (value: number): string => Math.round(value).toLocaleString("en");

const rows = [["publishing on Node, ioredis", "broker/s", "script alone/s", "share"]];
for (const inFlight of [1, 64]) {
  const results: { readonly broker: number; readonly bare: number }[] = [];
  for (let round = 0; round < rounds; round++) results.push(await measurePublishing(inFlight));
  const share = median(results.map(({ broker, bare }) => broker / bare));
  rows.push([
    `${inFlight} in flight`,
    format(median(results.map(({ broker }) => broker))),
    format(median(results.map(({ bare }) => bare))),
    `${(share * 100).toFixed(0)} %`,
  ]);
}
console.log(table(rows));

const memory: (readonly Phase[])[] = [];
const redis: (readonly Phase[])[] = [];
for (let round = 0; round < rounds; round++) {
  memory.push(await measureDelivery("fanwire-bun.ts"));
  redis.push(await measureDelivery("fanwire-bun-redis.ts"));
}
const medianOf = (all: readonly (readonly Phase[])[], index: number, value: (phase: Phase) => number): number =>
  median(all.map((phases) => value(phases[index] as Phase)));
const delivered = (phase: Phase): number => phase.delivered / phase.seconds;
const latency = (phase: Phase): number => phase.p50;
const faultCount = [...memory, ...redis]
  .flat()
  .reduce((sum, { missing, gaps, repeated }) => sum + missing + gaps + repeated, 0);
console.log(
  `\n${table([
    [`${clients} clients on Bun`, "memory", "Redis", "share"],
    ...[1, 8].map((inFlight, index) => {
      const share = median(
        redis.map((phases, round) => delivered(phases[index] as Phase) / delivered(memory[round]?.[index] as Phase)),
      );
      return [
        `deliveries/s, ${inFlight} in flight`,
        format(medianOf(memory, index, delivered)),
        format(medianOf(redis, index, delivered)),
        `${(share * 100).toFixed(0)} %`,
      ];
    }),
    [
      "median latency at 25/s, ms",
      medianOf(memory, 2, latency).toFixed(2),
      medianOf(redis, 2, latency).toFixed(2),
      `+${(medianOf(redis, 2, latency) - medianOf(memory, 2, latency)).toFixed(2)}`,
    ],
  ])}\n\nmissing, repeated or in gaps: ${faultCount}`,
);

const counts = await measureReconnects();
const sentCommands = ["evalsha", "eval", "subscribe", "unsubscribe", "ping"];
const sum = (names: readonly string[]): number => names.reduce((all, command) => all + (counts.get(command) ?? 0), 0);
console.log(
  `\n${table([
    [`${clients} clients of ${CHANNELS_EACH} channels come back at once`, "commands", "for each"],
    ...sentCommands
      .filter((command) => counts.has(command))
      .map((command) => [command, format(counts.get(command) ?? 0), ""]),
    ["sent by the instance", format(sum(sentCommands)), (sum(sentCommands) / clients).toFixed(2)],
    ["with what the scripts call", format(sum([...counts.keys()])), (sum([...counts.keys()]) / clients).toFixed(1)],
  ])}`,
);
process.exit(faultCount === 0 ? 0 : 1);
