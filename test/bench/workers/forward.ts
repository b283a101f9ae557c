// Forwards requests to the one object of the benchmark.
import { isUsageRequest } from "../usage.ts";

interface Fetcher {
  fetch(request: Request): Promise<Response>;
}

export interface Env {
  readonly HUB: { idFromName(name: string): unknown; get(id: unknown): Fetcher };
  /** Returns the usage of the process, which workerd itself does not tell. */
  readonly USAGE: Fetcher;
}

/** Forwards a request to the object, or to the usage service. */
export const forward = (request: Request, { HUB, USAGE }: Env): Promise<Response> =>
  (isUsageRequest(request.url) ? USAGE : HUB.get(HUB.idFromName("only"))).fetch(request);
