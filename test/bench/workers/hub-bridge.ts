// BrokerObject in mode bridge.
import { BrokerObject, worker } from "../../../src/workers/index.ts";
import { isUsageRequest } from "../usage.ts";
import type { Env } from "./forward.ts";

export class Hub extends BrokerObject {}

const broker = worker<Env>({ binding: "HUB", publishToken: "bench", mode: "bridge" });

export default {
  fetch: (request: Request, env: Env): Promise<Response> =>
    isUsageRequest(request.url) ? env.USAGE.fetch(request) : broker.fetch(request, env),
};
