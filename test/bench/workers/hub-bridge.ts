import { BrokerObject, worker } from "../../../src/workers/index.ts";
import { asksUsage } from "../usage.ts";
import type { Env } from "./pass-on.ts";

export class Hub extends BrokerObject {}

const broker = worker<Env>({ binding: "HUB", publishToken: "bench", mode: "bridge" });

export default {
  fetch: (request: Request, env: Env): Promise<Response> =>
    asksUsage(request.url) ? env.USAGE.fetch(request) : broker.fetch(request, env),
};
