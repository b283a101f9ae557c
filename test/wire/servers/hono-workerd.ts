// The Hono app on workerd.
import { memoryEngine } from "../../../src/index.ts";
import { createHonoApp } from "./hono-app.ts";

interface Bindings {
  STAGE: { idFromName(name: string): unknown; get(id: unknown): { fetch(request: Request): Promise<Response> } };
}

/** The app lives in one Durable Object; the Worker in front only forwards requests. */
export class Stage {
  readonly fetch: (request: Request) => Response | Promise<Response>;

  constructor(durableObject: object, env: Bindings) {
    const app = createHonoApp({ engine: memoryEngine({ durableObject }) });
    this.fetch = (request) => app.fetch(request, env);
  }
}

export default {
  fetch(request: Request, env: Bindings): Promise<Response> {
    return env.STAGE.get(env.STAGE.idFromName("only")).fetch(request);
  },
};
