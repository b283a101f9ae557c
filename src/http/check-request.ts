// Checks that a handler was called with a Web-standard `Request`, because the mistakes of the first hour are calls with something else.

/** Members that tell a `Request` of any class and realm from other objects, and that lead to the request inside a framework's context. */
interface Candidate {
  readonly headers?: { readonly get?: unknown };
  readonly httpVersion?: unknown;
  readonly method?: unknown;
  readonly node?: unknown;
  readonly raw?: unknown;
  readonly req?: unknown;
  readonly request?: unknown;
  readonly url?: unknown;
}

/** @throws `TypeError` for a value that is not a `Request`. It says what to write instead. */
export function checkRequest(method: string, value: unknown): void {
  if (isRequest(value)) return;
  const { node, raw, req, request } = open(value);
  const isOfNode = [value, raw, req, request, open(node).req, open(req).raw].some(
    (candidate) => typeof open(candidate).httpVersion === "string",
  );
  const cure = isRequest(request)
    ? `pass the request of the context: broker.${method}(context.request)`
    : isRequest(req)
      ? `pass the request of the event: broker.${method}(event.req)`
      : isRequest(open(req).raw)
        ? `use fanwire/hono, or pass broker.${method}(c.req.raw)`
        : isOfNode
          ? `wrap it for Node: getRequestListener((request) => broker.${method}(request)) of @hono/node-server`
          : `pass the Request that the runtime gives its fetch handler`;
  throw new TypeError(`${method}() refused: its argument is not a Request; ${cure}.`);
}

/** Returns an object with the members of any value. */
const open = (value: unknown): Candidate => Object(value) as Candidate;

function isRequest(value: unknown): boolean {
  const { headers, method, url } = open(value);
  return typeof url === "string" && typeof method === "string" && typeof headers?.get === "function";
}
