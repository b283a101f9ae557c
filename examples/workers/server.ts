// A broker and its live page on Cloudflare Workers. PUBLISH_TOKEN is a secret of the Worker.
import { env } from "cloudflare:workers";
import client from "fanwire/browser";
import { BrokerObject, hub, type ObjectOptions } from "fanwire/workers";
import page from "../bun/page.html";

/** The object that keeps the log. All clients share one. */
export class Hub extends BrokerObject {
  // A slow client may stay for 20 timeouts.
  override readonly options: ObjectOptions = { timeout: 3_000, tolerance: 20 };
}

const broker = hub(env.HUB, { publishToken: env.PUBLISH_TOKEN });

export default {
  async fetch(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === "/") return new Response(page, { headers: { "content-type": "text/html; charset=utf-8" } });
    if (pathname === "/client.js") return new Response(client, { headers: { "content-type": "text/javascript" } });
    if (pathname === "/stats") return Response.json(await broker.stats());
    const response = await broker.fetch(request);
    // Without no-store, Chromium reads 50 MB ahead of a page that uses fetch(), and the page could not show a stalled client before that.
    response.headers.set("cache-control", "no-store");
    return response;
  },
};
