// fanwire with the memory engine.
import { createBroker } from "../../src/index.ts";
import { isUsageRequest, usage } from "./usage.ts";

const broker = createBroker({ publishToken: "bench" });

/** The same on every runtime: `/connect`, `/broadcast` and `/cpu`. */
export function fetch(request: Request, context?: unknown): Response | Promise<Response> {
  return isUsageRequest(request.url) ? Response.json(usage(request.url)) : broker.fetch(request, context);
}
