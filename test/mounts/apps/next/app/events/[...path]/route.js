// GET /events/connect and POST /events/broadcast in Next.
export const dynamic = "force-dynamic";

const handle = (request) => globalThis.fanwire.fetch(request);

export { handle as GET, handle as HEAD, handle as OPTIONS, handle as POST };
