// The server under test on workerd.
import { memoryEngine } from "../../../src/index.ts";
import { createApp } from "./app.ts";

interface Namespace {
  idFromName(name: string): unknown;
  get(id: unknown): { fetch(request: Request): Promise<Response> };
}

/** The brokers live in one Durable Object; the Worker in front only forwards requests. */
export class Stage {
  readonly fetch: (request: Request) => Promise<Response>;

  constructor(durableObject: object) {
    this.fetch = createApp({
      gc: () => (globalThis as { gc?: () => void }).gc?.(),
      // workerd does not tell the size of its heap.
      heapUsed: () => null,
      engine: (options) => memoryEngine({ ...options, durableObject }),
    });
  }
}

export default {
  fetch(request: Request, env: { STAGE: Namespace }): Promise<Response> {
    return env.STAGE.get(env.STAGE.idFromName("only")).fetch(request);
  },
};
