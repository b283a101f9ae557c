import { type Broker, createBroker, memoryEngine } from "../../../src/index.ts";
import { type Env, passOn } from "./pass-on.ts";

export class Hub {
  readonly #broker: Broker;

  constructor(durableObject: object) {
    this.#broker = createBroker({ engine: memoryEngine({ durableObject }), publishToken: "bench" });
  }

  fetch(request: Request): Promise<Response> {
    return this.#broker.fetch(request);
  }
}

export default { fetch: (request: Request, env: Env): Promise<Response> => passOn(request, env) };
