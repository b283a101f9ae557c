// Runs a test inside a Durable Object, on workerd.
import { runtime, workersModule } from "./runtime.ts";

/** The parts of `cloudflare:test` and `cloudflare:workers` that are used here. */
interface CloudflareTest {
  runInDurableObject(stub: unknown, callback: (instance: object, ctx: unknown) => Promise<void>): Promise<void>;
}
interface CloudflareWorkers {
  env: { CONFORMANCE: { newUniqueId(): unknown; get(id: unknown): unknown } };
}

/**
 * Returns a test function that runs `body` where a broker would run. On workerd that is a new Durable Object, and `body` receives its `ctx`.
 * Elsewhere `body` receives `undefined`.
 */
export function withDurableObject(body: (durableObject: unknown) => Promise<void>): () => Promise<void> {
  if (runtime !== "workerd") return () => body(undefined);
  return async () => {
    const { env } = await workersModule<CloudflareWorkers>("cloudflare:workers");
    const { runInDurableObject } = await workersModule<CloudflareTest>("cloudflare:test");
    await runInDurableObject(env.CONFORMANCE.get(env.CONFORMANCE.newUniqueId()), (_instance, ctx) => body(ctx));
  };
}
