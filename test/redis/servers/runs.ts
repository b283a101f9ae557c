/**
 * Tests the runs of one client library on the runtime that runs this file. Environment as in roundtrip.ts. Two processes share a run; the connections
 * are lost in between. Prints its observations as JSON.
 */
import type { RunStore } from "../../../src/engine/run-store.ts";
import { redisEngine } from "../../../src/redis/index.ts";
import { connect, until } from "./library.ts";

const { PREFIX = "runs" } = process.env;

interface Member {
  readonly runs: RunStore;
  close(): void;
}

async function openMember(isLazy: boolean): Promise<Member> {
  const { client, close } = await connect(isLazy);
  const ignore = (): void => undefined;
  const session = redisEngine({ client, prefix: PREFIX, commandTimeout: 2_000 }).open({
    ...{ position: 0, onAppended: ignore, onOverrun: ignore, onError: ignore },
  });
  return {
    runs: session.openRuns?.(ignore) as RunStore,
    close() {
      session.close();
      close();
    },
  };
}
const members = [await openMember(true), await openMember(false)] as const;
const [{ runs: producer }, { runs: reader }] = members;
/** Calls until it succeeds. */
async function retry<T>(call: () => Promise<T> | T): Promise<T> {
  for (;;) {
    try {
      return await call();
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

const stops: boolean[] = [];
const watch = reader.watch("run é", (isStop) => void stops.push(isStop));
await watch.ready;
const start = { generation: "generation", leaseMs: 30_000, retainMs: 60_000, readers: "ädä" };
const started = [
  await producer.start("run é", start),
  await reader.start("run é", { ...start, generation: "another" }),
];
const texts = Array.from({ length: 300 }, (_, index) => `data: ${index} ä€😀\ndata: \n\n`);
const appended = await producer.append("run é", "generation", { after: 0, texts });
stops.splice(0);
const stopped = await reader.requestStop("run é");
await until(() => stops.includes(true));
const status = await producer.renew([{ id: "run é", generation: "generation" }]);

const admin = await connect(false);
const raw = admin.client as unknown as Record<string, ((...args: unknown[]) => Promise<unknown>) | undefined>;
const kill = ["CLIENT", "KILL", "SKIPME", "yes"];
stops.splice(0);
await (raw.send?.("CLIENT", kill.slice(1)) ?? raw.call?.(...kill) ?? raw.sendCommand?.(kill));
const ended = await retry(() => producer.append("run é", "generation", { after: 300, texts: [], end: "stopped" }));
// The feed is back, and whatever was missed is read.
await until(() => stops.length > 0);

let text = "";
let after = 0;
for (;;) {
  const page = await retry(() => reader.read("run é", after, 5_000));
  if (!page) throw new Error("The run is unknown.");
  text += new TextDecoder().decode(page.bytes);
  after = page.through;
  if (page.end === undefined || after < page.events) continue;
  const { end, leaseMs, readers, isStopping, events } = page;
  const isWhole = text === texts.map((each, index) => `id: generation-${index + 1}\n${each}`).join("");
  const last = { end, lease: String(leaseMs), readers, isStopping, events, isWhole };
  console.log(JSON.stringify({ started, appended, stopped, status, ended, ...last }));
  break;
}
const unknown = await retry(() => reader.read("another", 0, 1_000));
if (unknown) throw new Error("A run that nobody has started is known.");
watch.stop();
admin.close();
for (const member of members) member.close();
