// Answers of a model that survive a reload, on Cloudflare Workers. Each answer is an object, which produces and keeps it. PUBLISH_TOKEN is a
// secret of the Worker: whoever has it asks the model and stops it; everybody who knows the address of an answer reads it.
import { env } from "cloudflare:workers";
import { createRuns } from "fanwire/runs";
import { BrokerObject, type ObjectOptions } from "fanwire/workers";
import { answers } from "../bun/answers.ts";
import page from "../bun/llm.html";

/** The object of one answer. */
export class Answer extends BrokerObject {
  override readonly options: ObjectOptions = { timeout: 3_000, tolerance: 20 };
  readonly #serve = answers(createRuns(this), env.PUBLISH_TOKEN ?? crypto.randomUUID());

  override fetch(request: Request): Promise<Response> {
    return this.#serve(request);
  }
}

export default {
  async fetch(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === "/") return new Response(page, { headers: { "content-type": "text/html; charset=utf-8" } });
    const [, id] = /^\/answers\/([\w-]{1,64})$/.exec(pathname) ?? [];
    return id ? env.ANSWERS.getByName(id).fetch(request) : new Response("There is nothing here.", { status: 404 });
  },
};
