// GET /events/connect and POST /events/broadcast in Astro.
import type { APIRoute } from "astro";

export const prerender = false;
export const ALL: APIRoute = ({ request }) => globalThis.fanwire.fetch(request);
