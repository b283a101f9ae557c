/**
 * What the store costs: publishing beside the bare script, deliveries and latency beside the memory engine, and the commands of clients that
 * all come back at once.
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

/** How often something is done in a second, with so many at a time. */
async function pace(inFlight: number, act: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  const end = begin + seconds * 1000;
  let done = 0;
  const lane = async (): Promise<void> => {
    while (performance.now() < end) {
      await act();
      done++;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, lane));
  return (done / (performance.now() - begin)) * 1000;
}

/** Publishes per second of a broker in this process, and of its script alone through the same connection. */
async function publishing(inFlight: number): Promise<{ readonly broker: number; readonly bare: number }> {
  await admin.flushall();
  const client = new Redis(url);
  const commands: string[][] = [];
  const call = client.call.bind(client) as (...command: string[]) => Promise<unknown>;
  let keeps = true;
  // What the engine sends for one publish is what is sent again.
  client.call = ((...command: string[]) => {
    if (keeps) commands.push(command.flat());
    return call(...command);
  }) as typeof client.call;
  const broker = createBroker({ engine: redisEngine({ client, prefix: "cost" }) });
  await broker.broadcast(DATA);
  commands.length = 0;
  await broker.broadcast(DATA);
  const append = commands.find((command) => command.some((part) => part.includes(DATA)));
  if (!append) throw new Error("publishing: no command has the event");
  keeps = false;
  let number = Number(append[NUMBER]);
  if (!(number > 0)) throw new Error(`publishing: the ${NUMBER}th argument is not its number, but ${append[NUMBER]}`);
  const begin = number;
  let count = 0;
  const rate = await pace(inFlight, () => {
    count++;
    return broker.broadcast(DATA);
  });
  number = begin + count;
  const bare = await pace(inFlight, async () => {
    const command = [...append];
    command[NUMBER] = String(++number);
    const answer = (await call(...command)) as string[];
    if (answer[0] !== "ok") throw new Error(`publishing: the script answered ${answer}`);
  });
  await broker.close();
  client.disconnect();
  return { broker: rate, bare };
}
/** Where the command that appends has the number that must grow. */
const NUMBER = 7;

/** What a server on Bun delivers: as much as it can with 1 and with 8 publishes in flight, and how late at 25 a second. */
async function delivering(file: string): Promise<readonly Phase[]> {
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

/** How often each command was called until now; those that scripts call included. */
async function calls(): Promise<ReadonlyMap<string, number>> {
  const all = [...(await admin.info("commandstats")).matchAll(/^cmdstat_([^:]+):calls=(\d+)/gm)];
  return new Map(all.map(([, name = "", count]) => [name, Number(count)]));
}

/** Commands that the clients of one instance cause when all of them come back at once. */
async function returning(): Promise<ReadonlyMap<string, number>> {
  await admin.flushall();
  const instance = await Instance.start("bun", { REDIS_URL: url, PREFIX: "cost" });
  const name = (index: number): string => `channel-${index % CHANNELS}`;
  const connect = async (ids: readonly (string | undefined)[]): Promise<SocketClient[]> => {
    const opening = ids.map((id, index) => {
      const wanted = Array.from({ length: CHANNELS_EACH }, (_, step) => `&channel=${name(index * 7 + step)}`).join("");
      const headers: Record<string, string> = id === undefined ? {} : { "last-event-id": id };
      return new SocketClient(`${instance.url}/connect?id=client-${index}${wanted}`, headers);
    });
    return Promise.all(opening.map((each) => each.ready()));
  };
  const publish = async (): Promise<void> => {
    for (let index = 0; index < CHANNELS; index++) {
      const headers = { authorization: "Bearer chaos" };
      const response = await fetch(`${instance.url}/broadcast?channel=${name(index)}`, {
        method: "POST",
        body: DATA,
        headers,
      });
      if (response.status !== 200) throw new Error(`returning: a publish was answered ${response.status}`);
    }
  };
  const none = Array.from({ length: clients }, () => undefined);
  const first = await connect(none);
  await publish();
  await Promise.all(first.map((each) => each.until(({ data }) => data.length === CHANNELS_EACH)));
  const ids = first.map(({ lastEventId }) => lastEventId);
  for (const each of first) each.leave();
  await Promise.all(first.map((each) => each.end()));
  await publish();
  const before = await calls();
  const second = await connect(ids);
  await Promise.all(second.map((each) => each.until(({ data }) => data.length === CHANNELS_EACH)));
  const after = await calls();
  for (const each of second) each.leave();
  await instance.kill();
  const grown = [...after].map(([command, count]) => [command, count - (before.get(command) ?? 0)] as const);
  return new Map(grown.filter(([command, count]) => count > 0 && command !== "info"));
}

const whole = (value: number): string => Math.round(value).toLocaleString("en");

const rows = [["publishing on Node, ioredis", "broker/s", "bare script/s", "share"]];
for (const inFlight of [1, 64]) {
  const each: { readonly broker: number; readonly bare: number }[] = [];
  for (let round = 0; round < rounds; round++) each.push(await publishing(inFlight));
  const share = median(each.map(({ broker, bare }) => broker / bare));
  rows.push([
    `${inFlight} in flight`,
    whole(median(each.map(({ broker }) => broker))),
    whole(median(each.map(({ bare }) => bare))),
    `${(share * 100).toFixed(0)} %`,
  ]);
}
console.log(table(rows));

const memory: (readonly Phase[])[] = [];
const redis: (readonly Phase[])[] = [];
for (let round = 0; round < rounds; round++) {
  memory.push(await delivering("fanwire-bun.ts"));
  redis.push(await delivering("fanwire-bun-redis.ts"));
}
const middle = (all: readonly (readonly Phase[])[], index: number, value: (phase: Phase) => number): number =>
  median(all.map((phases) => value(phases[index] as Phase)));
const delivered = (phase: Phase): number => phase.delivered / phase.seconds;
const latency = (phase: Phase): number => phase.p50;
const lost = [...memory, ...redis]
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
        whole(middle(memory, index, delivered)),
        whole(middle(redis, index, delivered)),
        `${(share * 100).toFixed(0)} %`,
      ];
    }),
    [
      "median latency at 25/s, ms",
      middle(memory, 2, latency).toFixed(2),
      middle(redis, 2, latency).toFixed(2),
      `+${(middle(redis, 2, latency) - middle(memory, 2, latency)).toFixed(2)}`,
    ],
  ])}\n\nmissing, repeated or told as gaps: ${lost}`,
);

const caused = await returning();
const ofClients = ["evalsha", "eval", "subscribe", "unsubscribe", "ping"];
const sum = (names: readonly string[]): number => names.reduce((all, command) => all + (caused.get(command) ?? 0), 0);
console.log(
  `\n${table([
    [`${clients} clients of ${CHANNELS_EACH} channels come back at once`, "commands", "for each"],
    ...ofClients
      .filter((command) => caused.has(command))
      .map((command) => [command, whole(caused.get(command) ?? 0), ""]),
    ["sent by the instance", whole(sum(ofClients)), (sum(ofClients) / clients).toFixed(2)],
    ["with what the scripts call", whole(sum([...caused.keys()])), (sum([...caused.keys()]) / clients).toFixed(1)],
  ])}`,
);
process.exit(lost === 0 ? 0 : 1);
