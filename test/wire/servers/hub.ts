// The server under test behind a hub: each test broker is a Durable Object.
import type { BrokerOptions, LogOptions } from "../../../src/index.ts";
import { REQUEST_OPTIONS } from "../../../src/workers/hub.ts";
import { BrokerObject, type Hub, hub, type ObjectNamespace, type ObjectOptions } from "../../../src/workers/index.ts";
import { createApp } from "./app.ts";
import { control, type Host, type TestBroker } from "./control.ts";
import { TestRuns } from "./runs.ts";

interface Env {
  readonly STAGE: ObjectNamespace;
  readonly MODE: "bridge" | "direct";
}
interface Stub {
  control(action: string, args: Record<string, unknown>): Promise<unknown>;
  fetch(request: Request): Promise<Response>;
}

/** Test brokers by the name of their object. Locally the Worker and its objects run in one isolate. */
const created = new Map<string, { readonly options: ObjectOptions; test?: TestBroker }>();
const host: Host = {
  gc: () => (globalThis as { gc?: () => void }).gc?.(),
  // workerd does not tell the size of its heap.
  heapUsed: () => null,
};

/** The object of one test broker. */
export class Stage extends BrokerObject {
  readonly #created = created.get((this.ctx as unknown as { id: { name: string } }).id.name);
  override readonly options: ObjectOptions = this.#created?.options ?? {};
  readonly #runs = new TestRuns(this);

  override fetch(request: Request): Promise<Response> {
    const isRun = new URL(request.url).pathname.split("/")[2] === "runs";
    return isRun ? this.#runs.respond(request, undefined) : super.fetch(request);
  }

  control(action: string, args: Record<string, unknown>): Promise<unknown> {
    const test = this.#created?.test as TestBroker;
    const { broker } = test;
    const inside = Object.create(test, {
      broker: { value: { ...broker, ...methodsOf(this) } },
      runs: { value: this.#runs },
    });
    return control(host, inside, action, args);
  }
}

/** Returns the methods of an object that a hub lacks, or calls over RPC. */
const methodsOf = (object: BrokerObject): Partial<TestBroker["broker"]> => ({
  broadcast: object.broadcast.bind(object),
  close: object.close.bind(object),
  disconnect: object.disconnect.bind(object),
  stats: object.stats.bind(object),
});

/** Splits options into those of the Worker and those of the object. */
function split(options: BrokerOptions): [worker: object, object: ObjectOptions] {
  const worker: Record<string, unknown> = {};
  const object: Record<string, unknown> = { onError: options.onError, retry: options.retry };
  for (const [name, value] of Object.entries(options)) {
    if ((REQUEST_OPTIONS as readonly string[]).includes(name)) worker[name] = value;
    else object[name] = value;
  }
  return [worker, object];
}

let app: ReturnType<typeof createApp> | undefined;

function createHubApp({ STAGE, MODE }: Env): ReturnType<typeof createApp> {
  return createApp({
    ...host,
    createBroker(
      name: string,
      options: BrokerOptions,
      log: LogOptions,
    ): Hub & Pick<TestBroker["broker"], "close" | "broadcast"> {
      const [worker, object] = split(options);
      // The size of the memory engine, so that the same events fit.
      created.set(name, { options: { logBytes: 32 * 1024 * 1024, ...object, ...log } });
      const broker = hub(STAGE, { ...worker, name, mode: MODE });
      return { ...broker, close: () => Promise.reject(new Error("an object closes inside")) };
    },
    serveRun: (name, request) => (STAGE.getByName(name) as Stub).fetch(request),
    async control(name, test, action, args) {
      if (action === "decide") return void test.decision.decide();
      Object.assign(created.get(name) ?? {}, { test });
      const result = await (STAGE.getByName(name) as Stub).control(action, args);
      if (action !== "state") return result;
      // The object does not know the counts of requests.
      return {
        ...(result as object),
        stats: await test.broker.stats(),
        requests: test.requests,
        aborted: test.aborted,
      };
    },
  });
}

export default {
  fetch(request: Request, env: Env, context: unknown): Promise<Response> {
    app ??= createHubApp(env);
    return app(request, context);
  },
};
