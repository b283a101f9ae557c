import { createBroker } from "../../src/index.ts";
import { usage } from "./usage.ts";

const broker = createBroker({ publishToken: "bench" });

/** The same broker for every runtime: `/connect`, `/broadcast`, and `/cpu`. */
export function fetch(request: Request, context?: unknown): Response | Promise<Response> {
  return request.url.endsWith("/cpu") ? Response.json(usage()) : broker.fetch(request, context);
}
