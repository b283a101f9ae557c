// Checks that a handler was called with a Web-standard `Request`, because the mistakes of the first hour are calls with something else.

/** Members that distinguish a `Request` of any class and realm from other objects, and that lead to the request inside a framework's context. */
interface Candidate {
  readonly headers?: { readonly get?: unknown };
  readonly raw?: unknown;
  readonly req?: unknown;
  readonly request?: unknown;
  readonly url?: unknown;
}

/** @throws `TypeError` for a value that is not a `Request`. It says what to write instead. */
export function checkRequest(method: string, value: unknown): void {
  if (isRequest(value)) return;
  const { req, request } = open(value);
  // The names that the frameworks' own documentation uses: SvelteKit, Astro and Elysia; h3 2; Hono.
  const member = isRequest(request)
    ? "context.request"
    : isRequest(req)
      ? "event.req"
      : isRequest(open(req).raw)
        ? "c.req.raw"
        : undefined;
  const cure = member
    ? `broker.${method}(${member})`
    : `a Request; on Node wrap it: getRequestListener((request) => broker.${method}(request)) of @hono/node-server`;
  throw new TypeError(`${method}() refused: its argument is not a Request; pass ${cure}.`);
}

/** Returns an object with the members of any value. */
const open = (value: unknown): Candidate => Object(value) as Candidate;

function isRequest(value: unknown): boolean {
  const { headers, url } = open(value);
  return typeof url === "string" && typeof headers?.get === "function";
}
