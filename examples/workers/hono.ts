// Two ways to authorize an EventSource, which cannot send a token: a session cookie, and a ticket that is valid once. A token in the URL would
// end up in logs. With Hono, on Cloudflare Workers. PUBLISH_TOKEN is a secret of the Worker, TICKET_LIFE (milliseconds) a variable.
import { DurableObject, env } from "cloudflare:workers";
import client from "fanwire/browser";
import { sse } from "fanwire/hono";
import { BrokerObject, hub, type ObjectOptions } from "fanwire/workers";
import { Hono } from "hono";
import { bearerAuth } from "hono/bearer-auth";
import { some } from "hono/combine";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { createMiddleware } from "hono/factory";
import { HTTPException } from "hono/http-exception";
import { validator } from "hono/validator";
import page from "../bun/hono.html";

interface Session {
  readonly user: string;
  readonly expiresAt: number;
}
interface AppEnv {
  Variables: { cookie: string; session: Session | undefined };
}

/** Cookies and tickets that one user may have at a time. */
const MAX_SECRETS_PER_USER = 100;

/** The object that keeps the log. All clients share one. */
export class Hub extends BrokerObject {
  // A slow client may stay for 20 timeouts.
  override readonly options: ObjectOptions = { timeout: 3_000, tolerance: 20 };
}

/**
 * Sessions by a secret name, which is a cookie or a ticket. An object keeps them, because the request that uses a name may reach a Worker on
 * another continent. The object is not the hub, because a hub that is unused for long empties its storage.
 */
export class Secrets extends DurableObject {
  readonly #sql: typeof this.ctx.storage.sql = this.ctx.storage.sql;

  constructor(...args: ConstructorParameters<typeof DurableObject>) {
    super(...args);
    this.#sql.exec(
      `CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, user TEXT, expiresAt INTEGER, until INTEGER, cookie TEXT);
      CREATE INDEX IF NOT EXISTS untils ON secrets (until);
      CREATE INDEX IF NOT EXISTS users ON secrets (user)`,
    );
  }

  /** Creates a cookie, or a ticket. A ticket ends with its `cookie`, if it has one. Returns the secret name, valid for `life` milliseconds. */
  async make({ user, expiresAt }: Session, life: number, cookie = ""): Promise<string> {
    const now = Date.now();
    this.#sql.exec("DELETE FROM secrets WHERE until <= ?", now);
    const name = crypto.randomUUID();
    const until = Math.min(now + life, expiresAt);
    this.#sql.exec("INSERT INTO secrets VALUES (?, ?, ?, ?, ?)", name, user, expiresAt, until, cookie);
    // Who signs in, or asks for tickets, without end loses the oldest of their own.
    this.#sql.exec(
      `DELETE FROM secrets WHERE user = ?1 AND name NOT IN
        (SELECT name FROM secrets WHERE user = ?1 ORDER BY rowid DESC LIMIT ${MAX_SECRETS_PER_USER})`,
      user,
    );
    return name;
  }

  async find(name: string): Promise<Session | undefined> {
    const [session] = this.#sql.exec("SELECT * FROM secrets WHERE name = ? AND until > ?", name, Date.now());
    return session as Session | undefined;
  }

  /** Returns a session, and deletes its name, so that it is valid once. */
  async take(name: string): Promise<Session | undefined> {
    const session = await this.find(name);
    this.#sql.exec("DELETE FROM secrets WHERE name = ?", name);
    return session;
  }

  /** Ends a session with its tickets. */
  async drop(cookie: string): Promise<void> {
    this.#sql.exec("DELETE FROM secrets WHERE name = ? OR cookie = ?", cookie, cookie);
  }
}

const COOKIE = "fanwire-session";
/** Milliseconds. */
const SESSION_LIFE = 8 * 3_600_000;
/** One object for all sessions; a busy site would choose one by the first letters of the name. A stub is valid for one request. */
const secrets = () => env.SECRETS.getByName("secrets");

const broker = hub(env.HUB, { publishToken: env.PUBLISH_TOKEN });

const signedIn = createMiddleware<AppEnv>(async (c, next) => {
  if (!c.var.session) throw new HTTPException(401, { message: "Sign in first." });
  await next();
});

const app = new Hono<AppEnv>()
  .get("/", (c) => c.html(page))
  .get("/client.js", (c) => c.body(client, { headers: { "content-type": "text/javascript" } }))
  .get("/stats", async (c) => c.json(await broker.stats()))
  .use(async (c, next) => {
    const cookie = getCookie(c, COOKIE) ?? "";
    c.set("cookie", cookie);
    c.set("session", cookie ? await secrets().find(cookie) : undefined);
    await next();
  })
  .get("/session", (c) => c.json({ user: c.var.session?.user ?? null }))
  // A page of another origin cannot send JSON unless CORS allows it.
  .post(
    "/login",
    validator("json", ({ user }: { user?: unknown }) => {
      // A real application checks a password here.
      if (typeof user === "string" && /^[\w-]{1,32}$/.test(user)) return { user };
      throw new HTTPException(400, { message: "A name has 1 to 32 letters, digits, _ and -." });
    }),
    async (c) => {
      const { user } = c.req.valid("json");
      setCookie(c, COOKIE, await secrets().make({ user, expiresAt: Date.now() + SESSION_LIFE }, SESSION_LIFE), {
        httpOnly: true,
        sameSite: "Strict",
        secure: c.req.url.startsWith("https:"),
        maxAge: SESSION_LIFE / 1000,
      });
      return c.json({ user });
    },
  )
  .post("/logout", signedIn, async (c) => {
    const { cookie, session } = c.var;
    // From here on its tickets are not valid, and its streams end.
    await secrets().drop(cookie);
    deleteCookie(c, COOKIE);
    await broker.disconnect((session as Session).user);
    return c.body(null, 204);
  })
  // For a session, or for a program that has the token. The answer may be in a URL, because a ticket is valid once and not for long.
  .post("/ticket", some(signedIn, bearerAuth({ token: env.PUBLISH_TOKEN ?? [] })), async (c) => {
    const { cookie, session = { user: "(program)", expiresAt: Date.now() + SESSION_LIFE } } = c.var;
    return c.json({ ticket: await secrets().make(session, Number(env.TICKET_LIFE), c.var.session && cookie) });
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
      async authorize(c, { action }) {
        // Events come from /say, and from programs with the token.
        if (action === "publish") return false;
        const ticket = c.req.query("ticket");
        // A ticket is enough. If there is one, the cookie does not count.
        const session = ticket ? await secrets().take(ticket) : c.var.session;
        if (!session) throw new HTTPException(401, { message: "Sign in, or bring a ticket that was not used." });
        return { subject: session.user, clientId: session.user, expiresAt: session.expiresAt };
      },
    }),
  );

export default app;
