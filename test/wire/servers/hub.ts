import type { BrokerOptions, LogOptions } from "../../../src/index.ts";
import { FACE_OPTIONS } from "../../../src/workers/hub.ts";
import { BrokerObject, type Hub, hub, type ObjectNamespace, type ObjectOptions } from "../../../src/workers/index.ts";
import { createApp } from "./app.ts";
import { control, type Host, type Stage as Test } from "./control.ts";

interface Env {
  readonly STAGE: ObjectNamespace;
  readonly MODE: "bridge" | "direct";
}
interface Stub {
  tell(verb: string, wish: Record<string, unknown>): Promise<unknown>;
}

/** What a test made, by the name of its object. The Worker and its objects are in one isolate where they run locally. */
const made = new Map<string, { readonly options: ObjectOptions; test?: Test }>();
const host: Host = {
  gc: () => (globalThis as { gc?: () => void }).gc?.(),
  // workerd tells nothing about its heap.
  heapUsed: () => null,
};

/** One broker under test. */
export class Stage extends BrokerObject {
  readonly #made = made.get((this.ctx as unknown as { id: { name: string } }).id.name);
  override readonly options: ObjectOptions = this.#made?.options ?? {};

  tell(verb: string, wish: Record<string, unknown>): Promise<unknown> {
    const test = this.#made?.test as Test;
    const { broker } = test;
    const inside = Object.create(test, { broker: { value: { ...broker, ...callable(this) } } });
    return control(host, inside, verb, wish);
  }
}

const callable = (object: BrokerObject): Partial<Test["broker"]> => ({
  broadcast: object.broadcast.bind(object),
  close: object.close.bind(object),
  disconnect: object.disconnect.bind(object),
  stats: object.stats.bind(object),
});

/** Which options are the Worker's, and which the object's. */
function split(options: BrokerOptions): [face: object, object: ObjectOptions] {
  const face: Record<string, unknown> = {};
  const object: Record<string, unknown> = { onError: options.onError, retry: options.retry };
  for (const [name, value] of Object.entries(options)) {
    if ((FACE_OPTIONS as readonly string[]).includes(name)) face[name] = value;
    else object[name] = value;
  }
  return [face, object];
}

let app: ReturnType<typeof createApp> | undefined;

function createHubApp({ STAGE, MODE }: Env): ReturnType<typeof createApp> {
  return createApp({
    ...host,
    make(name: string, options: BrokerOptions, log: LogOptions): Hub & Pick<Test["broker"], "close" | "broadcast"> {
      const [face, object] = split(options);
      // As much as the memory engine has, so that the same fits.
      made.set(name, { options: { logBytes: 32 * 1024 * 1024, ...object, ...log } });
      const broker = hub(STAGE, { ...face, name, mode: MODE });
      return { ...broker, close: () => Promise.reject(new Error("an object closes inside")) };
    },
    async control(name, test, verb, wish) {
      if (verb === "decide") return void test.decision.decide();
      Object.assign(made.get(name) ?? {}, { test });
      const answer = await (STAGE.getByName(name) as Stub).tell(verb, wish);
      if (verb !== "state") return answer;
      // What concerns requests the object does not know.
      return {
        ...(answer as object),
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
