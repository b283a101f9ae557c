// `fanwire/hono`: the broker's endpoints as Hono handlers, with `authorize` that has the app's context.
import { type Context, type Env, type Handler, Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { cloneRawRequest } from "hono/request";
import type { BlankEnv, BlankInput } from "hono/types";
import type { BrokerError } from "./base/errors.ts";
import { onWorkers } from "./base/runtime.ts";
import type { Broker } from "./broker/interface.ts";
import type { AccessRequest, AuthorizeResult } from "./http/authorize.ts";
import type { EventOverrides } from "./http/overrides.ts";
import { problem } from "./http/problem.ts";

/** A broker, or on Workers the hub of its objects. */
type Handlers = Pick<Broker, "clientHandler" | "eventHandler">;

/** Options of {@link sse}, {@link connect} and {@link broadcast}. `E` is the app's environment: its variables and bindings. */
export interface HonoOptions<E extends Env = BlankEnv> {
  /**
   * Decides about a request, in place of the broker's `authorize`. Can use values that the app's middleware has set, such as `c.var.user`. An
   * `HTTPException` that it throws goes to `app.onError` as it is. Without this option the broker's `authorize` decides. Without either, every
   * request that passes the app's middleware may read every channel, under any client id.
   */
  readonly authorize?: (c: Context<E>, access: AccessRequest) => AuthorizeResult | Promise<AuthorizeResult>;
}

/** A handler for `app.get`, `app.post` or `app.all`. */
export type SseHandler<E extends Env = BlankEnv> = Handler<E, string, BlankInput, Promise<Response>>;

/**
 * Returns a sub-app with `/connect` and `/broadcast`. It refuses every event until the broker has a `publishToken`, or there is an
 * `authorize`. Errors are thrown as an `HTTPException` whose `cause` is the `BrokerError`, unless the broker has an `errorHandler`.
 *
 * @example
 * app.route("/events", sse<AppEnv>(broker, {
 *   authorize: (c, { action }) => action === "connect" && { clientId: c.var.user.id, channels: c.var.user.rooms },
 * }));
 * @throws `TypeError` for an unknown option.
 */
export function sse<E extends Env = BlankEnv>(broker: Handlers, options: HonoOptions<E> = {}): Hono<E> {
  const app = new Hono<E>();
  // For all methods, because the broker answers HEAD and OPTIONS, and refuses the others with its own error.
  app.all("/connect", connect(broker, options));
  app.all(
    "/broadcast",
    toHandler<E>((request, overrides) => broker.eventHandler(request, { ...overrides, requireToken: true }), options),
  );
  return app;
}

/**
 * Returns a handler that answers a client with its stream, at any path.
 *
 * @example
 * app.get("/rooms/:room", connect(broker, {
 *   authorize: (c: Context<AppEnv, "/rooms/:room">) => ({ channels: [c.req.param("room")] }),
 * }));
 * @throws `TypeError` for an unknown option. The handler throws `HTTPException` as {@link sse} does.
 */
export function connect<E extends Env = BlankEnv>(broker: Handlers, options: HonoOptions<E> = {}): SseHandler<E> {
  return toHandler<E>(broker.clientHandler, options);
}

/**
 * Returns a handler that publishes the body of a POST, at any path. Without an `authorize` it publishes for every request that passes the app's
 * middleware, so mount it behind a check of your own.
 *
 * @example app.post("/publish", bearerAuth({ token }), broadcast(broker));
 * @throws `TypeError` for an unknown option. The handler throws `HTTPException` as {@link sse} does.
 */
export function broadcast<E extends Env = BlankEnv>(broker: Handlers, options: HonoOptions<E> = {}): SseHandler<E> {
  return toHandler<E>(broker.eventHandler, options);
}

/** The overrides that both handlers take. */
type CommonOverrides = Pick<EventOverrides, "authorize" | "context" | "errorHandler">;

/** Turns a handler of the broker into one for Hono. */
function toHandler<E extends Env>(
  handle: (request: Request, overrides: CommonOverrides) => Promise<Response>,
  { authorize, ...unknown }: HonoOptions<E>,
): SseHandler<E> {
  // A misspelled `authorize` must not leave everything open.
  if ((authorize !== undefined && typeof authorize !== "function") || Object.keys(unknown).length > 0)
    throw new TypeError("fanwire/hono refused: the only option is authorize, and it must be a function.");
  return async (c) => {
    let exception: HTTPException | undefined;
    let failure: BrokerError | undefined;
    const authorizeWithContext =
      authorize &&
      (async (access: AccessRequest): Promise<AuthorizeResult> => {
        try {
          return await authorize(c, access);
        } catch (error) {
          if (!(error instanceof HTTPException)) throw error;
          exception = error;
          return new Response();
        }
      });
    const response = await handle(await requestOf(c), {
      context: contextOf(c.env),
      authorize: authorizeWithContext,
      errorHandler: (error) => {
        failure = error;
        return problem(error);
      },
    });
    if (c.finalized) {
      // Hono has already sent another response, such as that of its timeout. This one is dropped, and its stream would stay open.
      await response.body?.cancel();
      return response;
    }
    if (exception) {
      // The broker's CORS fields let other origins read the response of the exception.
      for (const [name, value] of response.headers)
        if (name === "vary" || name.startsWith("access-control-")) c.header(name, value, { append: name === "vary" });
      throw exception;
    }
    if (failure && failure.code !== "client-left") {
      const { message, status } = failure;
      throw new HTTPException(status as HTTPException["status"], { res: response, message, cause: failure });
    }
    // `newResponse` adds the header fields that middleware has set before.
    return c.newResponse(response.body, response);
  };
}

/**
 * Returns the request object that the runtime passed, because Bun's `server.timeout` accepts no other. If a middleware has read the body, the
 * request is cloned with the text that Hono has kept.
 */
async function requestOf({ req }: Context): Promise<Request> {
  return req.raw.bodyUsed ? cloneRawRequest(req) : req.raw;
}

/** Returns Bun's server if it is `env` or `env.server`, and otherwise `env`. */
function contextOf(env: { server?: { timeout?: unknown } } | undefined): unknown {
  // On Workers a service binding named `server` appears to have every method, so `timeout` proves nothing there.
  if (onWorkers() || typeof env?.server?.timeout !== "function") return env;
  return env.server;
}
