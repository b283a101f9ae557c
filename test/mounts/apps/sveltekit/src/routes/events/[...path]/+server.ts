// GET /events/connect and POST /events/broadcast in SvelteKit.
import type { RequestHandler } from "@sveltejs/kit";

export const fallback: RequestHandler = ({ request }) => globalThis.fanwire.fetch(request);
