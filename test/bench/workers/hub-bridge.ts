import { BrokerObject, hub, type ObjectNamespace } from "../../../src/workers/index.ts";
import type { Env } from "./pass-on.ts";

export class Hub extends BrokerObject {}

export default {
  fetch(request: Request, env: Env): Promise<Response> {
    if (request.url.endsWith("/cpu")) return env.USAGE.fetch(request);
    return hub(env.HUB as unknown as ObjectNamespace, { publishToken: "bench", mode: "bridge" }).fetch(request);
  },
};
