/**
 * Measures runs beside the package `resumable-stream` on one Redis: tokens a second from a producer to a reader of another instance, and the time
 * until a reader of another instance has the first byte of a stream that is under way.
 *
 *     npm ci --prefix test/adapters
 *     node test/bench/runs/resumable-stream.ts [--tokens 20000] [--resumes 200] [--rounds 3]
 *
 * Both have the same four methods, so the load is the same code. Each has two instances in this process, with Redis clients of their own.
 */
import { createRequire } from "node:module";
import { parseArgs } from "node:util";
import { Redis } from "ioredis";
import { createBroker } from "../../../src/index.ts";
import { redisEngine } from "../../../src/redis/index.ts";
import { createRuns } from "../../../src/runs/index.ts";
import { createResumableStreamContext, type ResumableStreamContext } from "../../../src/runs/resumable-stream.ts";
import { startRedis } from "../../support/servers/redis.ts";
import { median, table } from "../statistics.ts";

const { values } = parseArgs({
  options: {
    tokens: { type: "string", default: "20000" },
    resumes: { type: "string", default: "200" },
    rounds: { type: "string", default: "3" },
  },
});
const [tokens, resumes, rounds] = [values.tokens, values.resumes, values.rounds].map(Number) as [
  number,
  number,
  number,
];
/** Tokens that a stream has when it is resumed. */
const WRITTEN = 1_000;
const TOKEN = "a token of 22 letters ";

interface Contender {
  readonly name: string;
  readonly producer: ResumableStreamContext;
  readonly reader: ResumableStreamContext;
  close(): Promise<void>;
}
type Theirs = (options: object) => ResumableStreamContext;

const redis = await startRedis();

function ours(): Contender {
  const brokers = [0, 1].map(() =>
    createBroker({ engine: redisEngine({ client: new Redis(redis.url), prefix: "bench" }), onError: () => undefined }),
  );
  const [producer, reader] = brokers.map((broker) => createResumableStreamContext(createRuns(broker)));
  return {
    name: "fanwire/runs",
    producer: producer as ResumableStreamContext,
    reader: reader as ResumableStreamContext,
    close: async () => void (await Promise.all(brokers.map((broker) => broker.close({ force: true })))),
  };
}

function theirs(): Contender {
  const load = createRequire(new URL("../../adapters/package.json", import.meta.url));
  const { createResumableStreamContext: create } = load("resumable-stream/ioredis") as {
    readonly createResumableStreamContext: Theirs;
  };
  const clients: Redis[] = [];
  const context = (): ResumableStreamContext => {
    const [publisher, subscriber] = [new Redis(redis.url), new Redis(redis.url)];
    clients.push(publisher, subscriber);
    return create({ waitUntil: null, publisher, subscriber });
  };
  return {
    name: "resumable-stream",
    producer: context(),
    reader: context(),
    close: async () => {
      for (const client of clients) client.disconnect();
    },
  };
}

let count = 0;
/** Yields tokens when they are asked for, and every so often a turn to the others. */
const streamOf = (amount: number, wait?: Promise<void>): ReadableStream<string> => {
  let left = amount;
  return new ReadableStream<string>({
    async pull(controller) {
      if (left === 0) {
        await wait;
        controller.close();
      } else {
        left--;
        controller.enqueue(TOKEN);
        if (left % 64 === 0) await new Promise(setImmediate);
      }
    },
  });
};

async function read(stream: ReadableStream<string> | null | undefined, enough = Infinity): Promise<number> {
  if (!stream) throw new Error("Measuring: there is no stream to read.");
  const reader = stream.getReader();
  let length = 0;
  while (length < enough) {
    const { done, value = "" } = await reader.read();
    if (done) return length;
    length += value.length;
  }
  await reader.cancel();
  return length;
}

/** Tokens a second that reach the reader of another instance. */
async function throughput({ producer, reader }: Contender): Promise<number> {
  const id = `stream-${++count}`;
  let begin = (): void => undefined;
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const source = streamOf(tokens).pipeThrough(new TransformStream<string, string>({ start: () => begun }));
  const own = read(await producer.createNewResumableStream(id, () => source));
  const other = read(await reader.resumeExistingStream(id));
  const start = performance.now();
  begin();
  const lengths = await Promise.all([own, other]);
  const seconds = (performance.now() - start) / 1000;
  for (const length of lengths)
    if (length !== tokens * TOKEN.length) throw new Error(`Measuring: ${length} characters arrived.`);
  return tokens / seconds;
}

/** Milliseconds until a reader of another instance has the first byte of a stream with {@link WRITTEN} tokens. */
async function firstByte({ producer, reader }: Contender): Promise<number> {
  const id = `stream-${++count}`;
  let end = (): void => undefined;
  const wait = new Promise<void>((resolve) => {
    end = resolve;
  });
  const own = await producer.createNewResumableStream(id, () => streamOf(WRITTEN, wait));
  const ownReader = own?.getReader();
  for (let length = 0; length < WRITTEN * TOKEN.length; ) length += (await ownReader?.read())?.value?.length ?? 0;
  const times: number[] = [];
  for (let index = 0; index < resumes; index++) {
    const start = performance.now();
    await read(await reader.resumeExistingStream(id), 1);
    times.push(performance.now() - start);
  }
  end();
  await ownReader?.cancel();
  return median(times);
}

const rows: string[][] = [];
const results = new Map<string, { rate: number[]; first: number[] }>();
for (let round = 0; round < rounds; round++)
  for (const create of [ours, theirs]) {
    const contender = create();
    const result = results.get(contender.name) ?? { rate: [], first: [] };
    results.set(contender.name, result);
    result.rate.push(await throughput(contender));
    result.first.push(await firstByte(contender));
    await contender.close();
  }
for (const [name, { rate, first }] of results)
  rows.push([name, Math.round(median(rate)).toLocaleString("en"), median(first).toFixed(2)]);
console.log(`${tokens} tokens, ${resumes} resumes; ${rounds} rounds; medians`);
console.log(table([["", "tokens a second", "ms to the first byte of a resume"], ...rows]));
await redis.stop();
process.exit(0);
