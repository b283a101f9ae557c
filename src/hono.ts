import { type Context, type Env, type Handler, Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { cloneRawRequest } from "hono/request";
import type { BlankEnv, BlankInput } from "hono/types";
import type { BrokerError } from "./base/errors.ts";
import { onWorkers } from "./base/runtime.ts";
import type { Broker } from "./broker/broker.ts";
import type { AccessRequest, AuthorizeResult } from "./http/authorize.ts";
import type { EventOverrides } from "./http/handler.ts";
import { problem } from "./http/problem.ts";

/** The broker, or on Workers the hub of its objects. */
type Handlers = Pick<Broker, "clientHandler" | "eventHandler">;

/** Options of {@link sse}, {@link connect} and {@link broadcast}. `E` is the app's own: its variables and bindings. */
export interface HonoOptions<E extends Env = BlankEnv> {
  /**
   * Decides about a request by what the app's middleware established, such as `c.var.user`, in place of the broker's `authorize`. An
   * `HTTPException` that it throws goes to `app.onError` as it is. Without it the broker's `authorize` decides, and without either
   * everybody whom the app's middleware lets through reads every channel, under whatever client id.
   */
  readonly authorize?: (c: Context<E>, attempt: AccessRequest) => AuthorizeResult | Promise<AuthorizeResult>;
}

/** A handler for `app.get`, `app.post` or `app.all`. */
export type SseHandler<E extends Env = BlankEnv> = Handler<E, string, BlankInput, Promise<Response>>;

/**
 * A sub-app with `/connect` and `/broadcast`. It accepts no event until somebody decides about it: the broker's `publishToken`, or
 * an `authorize`. Errors are thrown as `HTTPException`s, the `BrokerError` their `cause`, unless the broker has an `errorHandler`.
 *
 * @example
 * app.route("/events", sse<AppEnv>(broker, {
 *   authorize: (c, { action }) => action === "connect" && { clientId: c.var.user.id, channels: c.var.user.rooms },
 * }));
 * @throws `TypeError` for an option that is none.
 */
export function sse<E extends Env = BlankEnv>(broker: Handlers, options: HonoOptions<E> = {}): Hono<E> {
  const app = new Hono<E>();
  // The broker answers other methods itself.
  app.all("/connect", connect(broker, options));
  app.all(
    "/broadcast",
    translate<E>((request, common) => broker.eventHandler(request, { ...common, requireToken: true }), options),
  );
  return app;
}

/**
 * Answers a client with its stream, at a path of your own.
 *
 * @example
 * app.get("/rooms/:room", connect(broker, {
 *   authorize: (c: Context<AppEnv, "/rooms/:room">) => ({ channels: [c.req.param("room")] }),
 * }));
 * @throws `TypeError` for an option that is none. The handler: `HTTPException`, as {@link sse} says.
 */
export function connect<E extends Env = BlankEnv>(broker: Handlers, options: HonoOptions<E> = {}): SseHandler<E> {
  return translate<E>(broker.clientHandler, options);
}

/**
 * Publishes the body of a POST, at a path of your own. Without an `authorize` it takes events from everybody whom the app's middleware
 * lets through: to mount it is the application's decision.
 *
 * @example app.post("/publish", bearerAuth({ token }), broadcast(broker));
 * @throws `TypeError` for an option that is none. The handler: `HTTPException`, as {@link sse} says.
 */
export function broadcast<E extends Env = BlankEnv>(broker: Handlers, options: HonoOptions<E> = {}): SseHandler<E> {
  return translate<E>(broker.eventHandler, options);
}

type Common = Pick<EventOverrides, "authorize" | "context" | "errorHandler">;

function translate<E extends Env>(
  handle: (request: Request, common: Common) => Promise<Response>,
  { authorize, ...others }: HonoOptions<E>,
): SseHandler<E> {
  // An option that is mistaken must not leave everything open.
  if ((authorize !== undefined && typeof authorize !== "function") || Object.keys(others).length > 0)
    throw new TypeError("fanwire/hono refused: the one option is authorize, a function.");
  return async (c) => {
    let thrown: HTTPException | undefined;
    let failure: BrokerError | undefined;
    const ask =
      authorize &&
      (async (attempt: AccessRequest): Promise<AuthorizeResult> => {
        try {
          return await authorize(c, attempt);
        } catch (error) {
          if (!(error instanceof HTTPException)) throw error;
          thrown = error;
          return new Response();
        }
      });
    const response = await handle(await requestOf(c), {
      context: contextOf(c.env),
      authorize: ask,
      errorHandler: (error) => {
        failure = error;
        return problem(error);
      },
    });
    if (c.finalized) {
      // Hono takes no answer after it gave another one, such as its timeout's, and a stream that nobody reads would stay.
      await response.body?.cancel();
      return response;
    }
    if (thrown) {
      // The fields that let other origins read it are the broker's.
      for (const [name, value] of response.headers)
        if (name === "vary" || name.startsWith("access-control-")) c.header(name, value, { append: name === "vary" });
      throw thrown;
    }
    if (failure && failure.code !== "client-left") {
      const { message, status } = failure;
      throw new HTTPException(status as HTTPException["status"], { res: response, message, cause: failure });
    }
    // With the fields that middleware has set before.
    return c.newResponse(response.body, response);
  };
}

/** The very request that the runtime passed, because Bun knows it only so; made anew where a middleware has read its body. */
async function requestOf({ req }: Context): Promise<Request> {
  return req.raw.bodyUsed ? cloneRawRequest(req) : req.raw;
}

/** Bun's server, where the app was given it as `env` or as `env.server`; else what the runtime passed. */
function contextOf(env: { server?: { timeout?: unknown } } | undefined): unknown {
  // A binding of Workers seems to have every method.
  if (onWorkers() || typeof env?.server?.timeout !== "function") return env;
  return env.server;
}
