import { memoryEngine } from "../../../src/index.ts";
import { createApp } from "./app.ts";

interface Namespace {
  idFromName(name: string): unknown;
  get(id: unknown): { fetch(request: Request): Promise<Response> };
}

/** The broker lives in one Durable Object; the Worker in front only passes on. */
export class Stage {
  readonly fetch: (request: Request) => Promise<Response>;

  constructor(durableObject: object) {
    this.fetch = createApp({
      gc: () => (globalThis as { gc?: () => void }).gc?.(),
      // workerd tells nothing about its heap.
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
