import { asksUsage } from "../usage.ts";

interface Fetcher {
  fetch(request: Request): Promise<Response>;
}

export interface Env {
  readonly HUB: { idFromName(name: string): unknown; get(id: unknown): Fetcher };
  /** Tells what the process has used, which workerd itself does not. */
  readonly USAGE: Fetcher;
}

/** The Worker in front of the one object. */
export const passOn = (request: Request, { HUB, USAGE }: Env): Promise<Response> =>
  (asksUsage(request.url) ? USAGE : HUB.get(HUB.idFromName("only"))).fetch(request);
