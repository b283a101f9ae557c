// Everything that differs between runtimes: detection, timers, the clock and idle timeouts. No other file asks which runtime it runs on, and
// no other file touches timers.

interface TimerGlobals {
  setImmediate?: (task: () => void) => unknown;
  navigator?: { userAgent?: string };
}
const globals: TimerGlobals = globalThis as TimerGlobals;

/**
 * Whether this is a Cloudflare Workers isolate. There, requests may arrive in many isolates, and timers are forbidden at module scope.
 */
export const onWorkers = (): boolean => globals.navigator?.userAgent === "Cloudflare-Workers";

/**
 * Whether a request's body is a stream of the runtime itself. Deno and workerd can use the connection again only if such a stream is cancelled.
 * On Node and Bun it may be a framework's, and some frameworks end the process when they write to it after that (h3 1).
 */
export const hasOwnBodies = (): boolean => /^(?:Deno|Cloudflare)/.test(globals.navigator?.userAgent ?? "");

/** Whether this is Node itself, and not a runtime that imitates its modules. Node 20 has no `navigator`. */
export const onNode = (): boolean => /^(?:undefined|Node)/.test(String(globals.navigator?.userAgent));

/** Runs `task` in the next turn of the event loop. workerd has no `setImmediate`. */
export function nextTurn(task: () => void): void {
  if (globals.setImmediate) globals.setImmediate(task);
  else setTimeout(task, 0);
}

/** The longest delay of a timer, in milliseconds. A longer one would fire at once on every runtime, so it is cut to this. */
const MAX_DELAY_MS = 2 ** 31 - 1;

/** Runs `task` once after `ms` milliseconds. Returns a function that cancels it. A `background` timer does not keep the process alive. */
export function after(ms: number, task: () => void, background = false): () => void {
  const timer: unknown = setTimeout(task, Math.min(ms, MAX_DELAY_MS));
  if (background) unref(timer);
  return () => clearTimeout(timer as number);
}

/** Runs `task` every `ms` milliseconds, without keeping the process alive. Returns a function that stops it. */
export function every(ms: number, task: () => void): () => void {
  const timer: unknown = setInterval(task, Math.min(ms, MAX_DELAY_MS));
  unref(timer);
  return () => clearInterval(timer as number);
}

/** Keeps the process alive until a promise resolves, because somebody awaits it. Returns the promise. */
export function keepAlive<T>(promise: Promise<T>): Promise<T> {
  void promise.then(after(Infinity, () => undefined));
  return promise;
}

/** Lets the process end while the timer runs, on runtimes where a timer would keep it alive. */
const unref = (timer: unknown): void => (timer as { unref?: () => void }).unref?.();

/** Returns monotonic milliseconds. On deployed Workers the clock stands still between I/O, so nothing there may depend on it. */
export const now = (): number => performance.now();

/**
 * Seconds to ask Bun for beyond the time that is needed. Bun looks at its sockets every 4 s, so it may close one up to 4 s early: 4 s or less
 * closes a stream at the next look, also one that is written to, and 8 s one that is silent for 5 (Bun 1.4.5). The rest is a margin.
 */
const IDLE_MARGIN_SECONDS = 8;
/** The parts of Node's `ServerResponse` that matter here. */
interface NodeResponse {
  readonly socket: unknown;
}

/**
 * Whether Node holds the response back, because another one on the same socket has not ended (pipelining: RFC 9112, section 9.3.2). A stream
 * would wait behind a stream, and take a place. The response is known where the adapter passes it on: @hono/node-server in `context`, srvx with
 * the request.
 */
export function isHeldBack(context: unknown, request: Request): boolean {
  const { outgoing } = Object(context) as { outgoing?: NodeResponse };
  const { runtime } = request as { runtime?: { node?: { res?: NodeResponse } } };
  return (outgoing ?? runtime?.node?.res)?.socket === null;
}

/** The longest idle timeout that Bun's `server.timeout` accepts, in seconds. */
const MAX_IDLE_SECONDS = 255;

/**
 * Asks a runtime that closes idle connections to keep this one open for `ms` milliseconds without traffic. `context` is what the runtime passed
 * to its handler beyond the request. Bun needs its own request object, not a copy.
 */
export function extendIdleTimeout(context: unknown, request: Request, ms: number): void {
  const server = context as { timeout?: (request: Request, seconds: number) => void } | null | undefined;
  if (typeof server?.timeout === "function")
    server.timeout(request, Math.min(MAX_IDLE_SECONDS, Math.ceil(ms / 1000) + IDLE_MARGIN_SECONDS));
}
