/**
 * EventSource can send no token, and one in the URL ends up in logs. Two ways without: a session cookie, and a ticket that is good once.
 * With Hono, on Bun. PORT, HOST, PUBLISH_TOKEN and TICKET_LIFE (milliseconds) come from the environment, or have defaults.
 */
import { randomBytes } from "node:crypto";
import { type Broker, createBroker } from "fanwire";
import { sse } from "fanwire/hono";
import { Hono } from "hono";
import { bearerAuth } from "hono/bearer-auth";
import { some } from "hono/combine";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { createMiddleware } from "hono/factory";
import { HTTPException } from "hono/http-exception";
import { validator } from "hono/validator";

const { PORT = "3000", HOST = "127.0.0.1", PUBLISH_TOKEN, TICKET_LIFE = "30000" } = process.env;
const token = (process.env.PUBLISH_TOKEN ||= crypto.randomUUID());

interface Session {
  readonly user: string;
  expiresAt: number;
}
interface AppEnv {
  Variables: { session: Session | undefined };
}

/** Sessions by a secret name, for so long. One process; several need a store that they share. */
class Secrets {
  readonly #sessions = new Map<string, { session: Session; until: number }>();
  readonly #life: number;
  readonly #mostOfUser: number;

  constructor(life: number, mostOfUser: number) {
    this.#life = life;
    this.#mostOfUser = mostOfUser;
  }

  make(session: Session): string {
    // The oldest come first.
    for (const [secret, { until }] of this.#sessions) {
      if (until > Date.now()) break;
      this.#sessions.delete(secret);
    }
    // Nobody can fill the memory, and nobody can end the session of another: a user who has too many loses the oldest of their own.
    let [own, oldest] = [0, ""];
    for (const [secret, known] of this.#sessions) {
      if (known.session.user === session.user && own++ === 0) oldest = secret;
    }
    if (own >= this.#mostOfUser) this.#sessions.delete(oldest);
    else if (this.#sessions.size >= 10_000)
      throw new HTTPException(503, { message: "Too many are signed in; come back later." });
    const secret = randomBytes(16).toString("base64url");
    this.#sessions.set(secret, { session, until: Date.now() + this.#life });
    return secret;
  }

  find(secret: string): Session | undefined {
    const found = this.#sessions.get(secret);
    return found && Math.min(found.until, found.session.expiresAt) > Date.now() ? found.session : undefined;
  }

  /** Finds it for the last time. */
  take(secret: string): Session | undefined {
    const session = this.find(secret);
    this.#sessions.delete(secret);
    return session;
  }
}

const COOKIE = "fanwire-session";
const SESSION_LIFE = 8 * 3_600_000;
const sessions = new Secrets(SESSION_LIFE, 10);
const tickets = new Secrets(Number(TICKET_LIFE), 1_000);

// `bun --hot` loads this file again when it changes. The broker and its streams stay, with the options and the token that they began with.
declare global {
  var fanwire: Broker | undefined;
}
const broker = (globalThis.fanwire ??= createBroker({
  publishToken: token,
  // close() waits that long for a client that does not read, so it is short; one that is only slow may stay for 20 of them.
  timeout: 3_000,
  tolerance: 20,
}));

const signedIn = createMiddleware<AppEnv>(async (c, next) => {
  if (!c.var.session) throw new HTTPException(401, { message: "Sign in first." });
  await next();
});

const app = new Hono<AppEnv>()
  .get("/", () => new Response(Bun.file(new URL("hono.html", import.meta.url))))
  .get("/client.js", () => new Response(Bun.file(new URL(import.meta.resolve("fanwire/browser")))))
  .get("/stats", (c) => c.json(broker.stats()))
  .use(async (c, next) => {
    c.set("session", sessions.find(getCookie(c, COOKIE) ?? ""));
    await next();
  })
  .get("/session", (c) => c.json({ user: c.var.session?.user ?? null }))
  // A page of another origin cannot send JSON without being allowed to.
  .post(
    "/login",
    validator("json", ({ user }: { user?: unknown }) => {
      // Where a password would be checked.
      if (typeof user === "string" && /^[\w-]{1,32}$/.test(user)) return { user };
      throw new HTTPException(400, { message: "A name has 1 to 32 letters, digits, _ and -." });
    }),
    (c) => {
      const { user } = c.req.valid("json");
      setCookie(c, COOKIE, sessions.make({ user, expiresAt: Date.now() + SESSION_LIFE }), {
        httpOnly: true,
        sameSite: "Strict",
        // Behind a proxy that ends TLS it is `true`.
        secure: c.req.url.startsWith("https:"),
        maxAge: SESSION_LIFE / 1000,
      });
      return c.json({ user });
    },
  )
  .post("/logout", signedIn, async (c) => {
    const session = c.var.session as Session;
    // Its tickets are worth nothing from now on, and its streams end.
    session.expiresAt = 0;
    deleteCookie(c, COOKIE);
    await broker.disconnect(session.user);
    return c.body(null, 204);
  })
  // For a session, or for a program that has the token; what it gives may stand in a URL.
  .post("/ticket", some(signedIn, bearerAuth({ token })), (c) => {
    const session = c.var.session ?? { user: "(program)", expiresAt: Date.now() + SESSION_LIFE };
    return c.json({ ticket: tickets.make(session) });
  })
  .post(
    "/say",
    signedIn,
    validator("json", ({ text }: { text?: unknown }) => {
      if (typeof text === "string" && text !== "" && text.length <= 1_000) return { text };
      throw new HTTPException(400, { message: "A text has 1 to 1,000 characters." });
    }),
    async (c) => c.json(await broker.broadcast(`${c.var.session?.user}: ${c.req.valid("json").text}`)),
  )
  .route(
    "/events",
    sse<AppEnv>(broker, {
      authorize(c, { action }) {
        // Events come from /say, and from who has the token.
        if (action === "publish") return false;
        const ticket = c.req.query("ticket");
        // A ticket is enough, and where there is one it decides alone.
        const session = ticket ? tickets.take(ticket) : c.var.session;
        if (!session) throw new HTTPException(401, { message: "Sign in, or bring a ticket that was not used." });
        return { subject: session.user, clientId: session.user, expiresAt: session.expiresAt };
      },
    }),
  );

// Bun's server comes to the app as `c.env`, and so to the broker, which keeps quiet streams open through it.
const server = Bun.serve({ port: PORT, hostname: HOST, fetch: app.fetch });

console.log(`${server.url}`);
if (!PUBLISH_TOKEN) console.log(`curl -H "Authorization: Bearer ${token}" -d "hello" ${server.url}events/broadcast`);

async function shutdown(): Promise<void> {
  await broker.close({ spreadOver: 500 });
  // stop() waits for every socket, also for one that nobody reads from; stop(true) does not.
  setTimeout(() => server.stop(true), 1_000).unref();
  await server.stop();
}

// Once: a second signal ends the process at once.
process.once("SIGTERM", () => void shutdown());
process.once("SIGINT", () => void shutdown());
