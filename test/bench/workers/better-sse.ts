import { createChannel, createResponse } from "better-sse";
import { type Env, passOn } from "./pass-on.ts";

export class Hub {
  readonly #channel = createChannel();

  async fetch(request: Request): Promise<Response> {
    if (request.url.endsWith("/broadcast")) {
      this.#channel.broadcast(await request.text());
      return new Response("ok");
    }
    // The data goes out as it came, as it does from the others.
    return createResponse(request, { serializer: String }, (session) => {
      this.#channel.register(session);
    });
  }
}

export default { fetch: (request: Request, env: Env): Promise<Response> => passOn(request, env) };
