// A script that awaits one call of a broker, with nothing else that would keep its process alive. The first argument is the name of the call.
// Prints "done" after it.
import { BrokerError, createBroker } from "../../../src/index.ts";
import type { SharedLogSession } from "../../../src/shared-log/shared-log.ts";
import { sharedLogEngine } from "../../../src/shared-log/shared-log-engine.ts";

const refuse = (): Promise<never> => Promise.reject(new BrokerError("engine-down", "The store is not reachable."));
/** A store that is never reachable. */
const store: SharedLogSession = {
  lease: 60_000,
  append: refuse,
  subscribe: refuse,
  unsubscribe: refuse,
  requestCheckpoint: refuse,
  read: refuse,
  historyBounds: refuse,
  enter: refuse,
  leave: refuse,
  linger: refuse,
  renew: refuse,
  isBarred: refuse,
  disconnect: refuse,
  renewFeed: () => undefined,
  close: () => undefined,
};
const unreachable = sharedLogEngine({ open: () => store });

const request = new Request("http://127.0.0.1/connect?id=unread", { headers: { accept: "text/event-stream" } });

const calls: Readonly<Record<string, () => Promise<unknown>>> = {
  async close() {
    const broker = createBroker({ timeout: 200 });
    await broker.fetch(request);
    await broker.close();
  },
  async "close of a disconnected client"() {
    const broker = createBroker({ timeout: 200 });
    await broker.fetch(request);
    await broker.disconnect("unread");
    await broker.close();
  },
  async "close by force"() {
    const broker = createBroker();
    await broker.fetch(request);
    const closed = broker.close({ spreadOver: 3_600_000 });
    void broker.close({ force: true });
    await closed;
  },
  async report() {
    const broker = createBroker({ timeout: 200 });
    await broker.fetch(request);
    const { report } = await broker.broadcastTo("unread", "x", { report: true });
    console.log(JSON.stringify(await report));
  },
  async "held publisher"() {
    const broker = createBroker({ timeout: 200 });
    const { body } = await broker.fetch(request);
    // The client is live, and then blocked.
    const reader = body?.getReader();
    await reader?.read();
    const more = reader?.read();
    for (let event = 0; event < 40; event++) await broker.broadcast("x".repeat(100_000));
    await more;
  },
  async "publisher without a store"() {
    const broker = createBroker({ engine: unreachable });
    await broker.broadcast("x").catch((error: { code: string }) => console.log(error.code));
  },
  async "client without a store"() {
    const broker = createBroker({ engine: unreachable });
    const { status } = await broker.fetch(new Request("http://127.0.0.1/connect"));
    console.log(status);
  },
  /** Nobody awaits the broker: a stream with heartbeats and a listener must not keep the process alive. */
  async idle() {
    const broker = createBroker({ heartbeat: 20, timeout: 3_600_000 });
    const response = await broker.fetch(request);
    const reader = response.body?.getReader();
    await reader?.read();
    void reader?.read();
    void broker.listen().next();
    Object.assign(globalThis, { broker, response });
  },
};

const [name = "", ...rest] = process.argv.slice(2);
const call = calls[[name, ...rest].join(" ")];
if (!call)
  throw new Error(`Awaiting a call: there is none called "${name}"; known are ${Object.keys(calls).join(", ")}.`);
await call();
console.log("done");
