// Stores of runs in a Durable Object of their own, for tests outside of it: each call runs inside the object.
import type { RunStore } from "../../../src/engine/run-store.ts";
import { durableEngine } from "../../../src/workers/sqlite-engine.ts";
import { workersModule } from "../runtime.ts";
import { openRunsOf } from "./sessions.ts";
import type { StoreUnderTest } from "./store-contract.ts";

type Storage = Parameters<typeof durableEngine>[0];
interface CloudflareTest {
  runInDurableObject<T>(
    stub: unknown,
    callback: (instance: object, ctx: { readonly storage: Storage }) => T,
  ): Promise<Awaited<T>>;
}
interface CloudflareWorkers {
  readonly env: { readonly CONFORMANCE: { newUniqueId(): unknown; get(id: unknown): unknown } };
}

/** Opens a store in a new object. */
export async function openObjectRuns(): Promise<StoreUnderTest> {
  const { env } = await workersModule<CloudflareWorkers>("cloudflare:workers");
  const { runInDurableObject } = await workersModule<CloudflareTest>("cloudflare:test");
  const stub = env.CONFORMANCE.get(env.CONFORMANCE.newUniqueId());
  const inside = <T>(body: (storage: Storage) => T): Promise<Awaited<T>> =>
    runInDurableObject(stub, (_, { storage }) => body(storage));
  const engine = await inside((storage) => durableEngine(storage));
  const open = async (): Promise<RunStore> => {
    const session = await inside(() => openRunsOf(engine));
    const { runs } = session;
    return {
      start: (...values) => inside(() => runs.start(...values)),
      append: (...values) => inside(() => runs.append(...values)),
      renew: (...values) => inside(() => runs.renew(...values)),
      read: (...values) => inside(() => runs.read(...values)),
      requestStop: (...values) => inside(() => runs.requestStop(...values)),
      watch(id, onChange) {
        const watching = inside(() => runs.watch(id, onChange));
        return {
          ready: watching.then(({ ready }) => ready),
          stop: () => void watching.then(({ stop }) => stop()),
        };
      },
      close: () => void inside(() => session.close()),
    };
  };
  return { store: await open(), other: open, close: () => inside(() => undefined) };
}
