// Serves a broker through Node's HTTP classes, without the web streams of an adapter.

import { ErrorReporter } from "../base/error-reporter.ts";
import { checkKnownKeys } from "../base/validate.ts";
import type { BrokerOptions } from "../broker/options.ts";
import { connectionOf } from "../delivery/stream-connection.ts";
import type { BrokerPaths } from "../http/handler.ts";
import { NodeRequest } from "./node-request.ts";
import { ResponseSink } from "./response-sink.ts";
import type { NodeIncoming, NodeNext, NodeOutgoing } from "./types.ts";

/** Answers a request. */
export type NodeFetch = (request: Request, context: NodeContext) => Response | Promise<Response>;

/** Node's own objects. `authorize` receives them as `context`. */
export interface NodeContext {
  readonly incoming: NodeIncoming;
  readonly outgoing: NodeOutgoing;
}

/** The parts of a broker that are served. */
export interface ServedBroker {
  readonly paths: BrokerPaths;
  fetch(request: Request, context?: unknown): Promise<Response>;
}

/** Options of {@link nodeHandler}. */
export interface NodeHandlerOptions {
  /**
   * Receives an error of a function that was given in place of a broker, where there is no `next`. The client is answered 500.
   * @default prints one a minute with `console.error`
   */
  readonly onError?: BrokerOptions["onError"];
}

/** Serves a request. Fits `node:http`, Express, Connect, and every framework that passes on Node's objects. */
export type NodeHandler = (incoming: NodeIncoming, outgoing: NodeOutgoing, next?: NodeNext) => void;

const OPTIONS = new Set(["onError"]);
/** Fields that HTTP/2 does not allow (RFC 9113, section 8.2.2). */
const CONNECTION_FIELDS = new Set(["connection", "keep-alive", "transfer-encoding", "upgrade"]);

/**
 * Creates a handler for Node's HTTP servers: `http`, `https`, `http2`, and frameworks on top of them. Serves the broker's paths, also below the
 * path of a mount, and passes every other request to `next`. Takes `request.body` if a body parser has run before. Streams end when the server
 * stops.
 *
 * In place of a broker it takes a function that answers a `Request`, for paths of your own.
 *
 * @example createServer(nodeHandler(broker)).listen(3000);
 * @example app.use("/events", nodeHandler(broker)); // Express: GET /events/connect
 * @example app.get("/rooms/:room", (req, res) => nodeHandler((request) => broker.clientHandler(request, { channels: req.params.room }))(req, res));
 * @throws `TypeError` if the first argument is neither a broker nor a function, or for an unknown option
 */
export function nodeHandler(broker: ServedBroker | NodeFetch, options: NodeHandlerOptions = {}): NodeHandler {
  checkKnownKeys("nodeHandler()", "option", OPTIONS, options);
  const isFunction = typeof broker === "function";
  const serve = isFunction ? server(broker, options) : brokerServer(broker, options);
  const paths = isFunction ? undefined : pathsOf(broker);
  return (incoming, outgoing, next) => {
    const target = targetOf(incoming, paths);
    if (target === undefined && next) next();
    else serve(incoming, outgoing, target ?? incoming.url ?? "/", next);
  };
}

/** Returns the paths that a broker serves. */
export const pathsOf = ({ paths }: ServedBroker): string[] =>
  Object.values(paths).filter((path) => typeof path === "string");

/** Serves a request at a target, which a mount may have shortened. */
type Serve = (incoming: NodeIncoming, outgoing: NodeOutgoing, target: string, next?: NodeNext) => void;

/** Serves what a broker serves. @throws `TypeError` if it is not a broker */
export function brokerServer(broker: ServedBroker, options: NodeHandlerOptions = {}): Serve {
  if (typeof broker?.fetch !== "function" || typeof broker.paths !== "object")
    throw new TypeError("nodeHandler() refused: it needs a broker, or a function that answers a Request.");
  return server((request, context) => broker.fetch(request, context), options);
}

function server(answer: NodeFetch, { onError }: NodeHandlerOptions): Serve {
  const errors = new ErrorReporter(onError);
  return (incoming, outgoing, target, next) => {
    respond(incoming, outgoing, target, answer).catch((error: unknown) => {
      if (next && !outgoing.headersSent) {
        next(error);
        return;
      }
      void errors.report("request", error);
      fail(outgoing);
    });
  };
}

/**
 * Returns the URL at which the broker serves a request: the original one, or the one below a mount. `undefined` if it serves neither. A function
 * serves every URL.
 */
function targetOf(
  { url = "/", originalUrl = url }: NodeIncoming,
  paths: readonly string[] | undefined,
): string | undefined {
  return [originalUrl, url].find((target) => !paths || paths.includes(pathOf(target)));
}

/** Returns the path of a request target, as a URL has it. */
export function pathOf(target: string): string {
  try {
    return new URL(target, "http://localhost").pathname;
  } catch {
    return target;
  }
}

async function respond(
  incoming: NodeIncoming,
  outgoing: NodeOutgoing,
  target: string,
  answer: NodeFetch,
): Promise<void> {
  const request = new NodeRequest(incoming, target);
  const onClose = (): void => request.left();
  outgoing.once("close", onClose);
  const response = await answer(request as unknown as Request, { incoming, outgoing });
  // The request is not kept for as long as a stream is open.
  outgoing.off("close", onClose);
  await send(outgoing, response, request.method === "HEAD");
}

/** Sends a response of the broker or of the application. */
async function send(outgoing: NodeOutgoing, response: Response, isHead: boolean): Promise<void> {
  const { body } = response;
  if (outgoing.destroyed || outgoing.writableEnded) {
    await body?.cancel();
    return;
  }
  const connection = isHead ? undefined : connectionOf(body);
  // A stream that has ended leaves its socket behind, for which `server.close()` would wait.
  if (connection) outgoing.shouldKeepAlive = false;
  writeHead(outgoing, response, connection !== undefined);
  if (isHead || !body) {
    outgoing.end();
    await body?.cancel();
  } else if (connection) {
    new ResponseSink(connection, outgoing).start();
  } else if (isJson(response)) {
    // Node sends the head and a text in one write, and counts its bytes.
    outgoing.end(await response.text());
  } else await pipe(body, outgoing);
}

/** Sets the status and the fields, next to those that a middleware has set. */
function writeHead(outgoing: NodeOutgoing, { status, headers }: Response, isStream: boolean): void {
  const isHttp2 = "stream" in outgoing;
  if (isStream && !isHttp2 && outgoing.getHeaderNames().length === 0) {
    // A list takes less memory for as long as the response is open.
    outgoing.writeHead(status, [...headers].flat());
    return;
  }
  outgoing.statusCode = status;
  for (const [name, value] of headers) {
    if (isHttp2 && CONNECTION_FIELDS.has(name)) continue;
    const before = outgoing.getHeader(name);
    if (name === "set-cookie") outgoing.setHeader(name, [before ?? [], value].flat().map(String));
    else if (name === "vary" && before !== undefined) outgoing.setHeader(name, `${String(before)}, ${value}`);
    else outgoing.setHeader(name, value);
  }
}

const isJson = ({ headers }: Response): boolean =>
  /^application\/(?:problem\+)?json\s*(?:;|$)/.test(headers.get("content-type") ?? "");

/** Writes a body of the application, at the pace of the client. */
async function pipe(body: ReadableStream<Uint8Array>, outgoing: NodeOutgoing): Promise<void> {
  const reader = body.getReader();
  const onClose = (): void => void reader.cancel().catch(() => undefined);
  outgoing.once("close", onClose);
  // A client that reads nothing would hold the socket of a body that has failed.
  reader.closed.catch(() => outgoing.destroy());
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (outgoing.destroyed) return;
      if (outgoing.write(part.value) === false) await drained(outgoing);
    }
    outgoing.end();
  } catch {
    // The application's stream failed after the head was sent: only a cut shows that to the client.
    outgoing.destroy();
  }
}

/** Resolves when the response takes more, or has closed. */
const drained = (outgoing: NodeOutgoing): Promise<void> =>
  new Promise((resolve) => {
    outgoing.once("drain", () => resolve());
    outgoing.once("close", () => resolve());
  });

/** Answers 500 without a text of the error, or cuts a response whose head was sent. */
function fail(outgoing: NodeOutgoing): void {
  if (outgoing.headersSent) outgoing.destroy();
  else {
    outgoing.statusCode = 500;
    outgoing.end();
  }
}
