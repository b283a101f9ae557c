import { openStream } from "../bare.ts";
import { type Env, passOn } from "./pass-on.ts";

export class Hub {
  fetch({ url }: Request): Response {
    return new URL(url).pathname === "/connect" ? openStream() : new Response(null, { status: 404 });
  }
}

export default { fetch: (request: Request, env: Env): Promise<Response> => passOn(request, env) };
