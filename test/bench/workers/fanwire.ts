// createBroker in a Durable Object.
import { type Broker, createBroker, memoryEngine } from "../../../src/index.ts";
import { type Env, forward } from "./forward.ts";

export class Hub {
  readonly #broker: Broker;

  constructor(durableObject: object) {
    this.#broker = createBroker({ engine: memoryEngine({ durableObject }), publishToken: "bench" });
  }

  fetch(request: Request): Promise<Response> {
    return this.#broker.fetch(request);
  }
}

export default { fetch: (request: Request, env: Env): Promise<Response> => forward(request, env) };
