import { createBroker } from "../../src/index.ts";
import { asksUsage, usage } from "./usage.ts";

const broker = createBroker({ publishToken: "bench" });

/** The same broker for every runtime: `/connect`, `/broadcast`, and `/cpu`. */
export function fetch(request: Request, context?: unknown): Response | Promise<Response> {
  return asksUsage(request.url) ? Response.json(usage(request.url)) : broker.fetch(request, context);
}
