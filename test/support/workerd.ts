import { runtime, workersModule } from "./runtime.ts";

/** The part of `cloudflare:test` and `cloudflare:workers` that is used here. */
interface CloudflareTest {
  runInDurableObject(stub: unknown, callback: (instance: object, ctx: unknown) => Promise<void>): Promise<void>;
}
interface CloudflareWorkers {
  env: { STAGE: { newUniqueId(): unknown; get(id: unknown): unknown } };
}

/**
 * Makes `fn` a test body that runs where a broker would: on workerd inside a Durable Object made for this one run (and
 * sent its `ctx`), elsewhere as it is (and sent `undefined`).
 */
export function inside(fn: (durableObject: unknown) => Promise<void>): () => Promise<void> {
  if (runtime !== "workerd") return () => fn(undefined);
  return async () => {
    const { env } = await workersModule<CloudflareWorkers>("cloudflare:workers");
    const { runInDurableObject } = await workersModule<CloudflareTest>("cloudflare:test");
    await runInDurableObject(env.STAGE.get(env.STAGE.newUniqueId()), (_instance, ctx) => fn(ctx));
  };
}
