import { type Authorize, BrokerError, type BrokerOptions } from "../../../src/index.ts";

/** What no client may ever read. */
export const INNER_TEXT = "inner text: postgres://admin@10.0.0.5";

/** Lets a test say when `authorize` answers. */
export class Decision {
  #isMade = false;

  /** Looks again and again: in a Worker a promise settles only in the request that made it. */
  get made(): Promise<void> {
    const look = async (): Promise<void> => {
      while (!this.#isMade) await new Promise((resolve) => setTimeout(resolve, 5));
    };
    return look();
  }

  readonly decide = (): void => {
    this.#isMade = true;
  };
}

/** Rules by name: a function does not survive JSON. */
export const authorizes = {
  everybody: () => true,
  /** Who presents nothing is asked to; a reader may read `open`, a publisher may publish to it, nobody else may anything. */
  roles: ({ request, action }) => {
    const role = request.headers.get("authorization")?.replace("Bearer ", "");
    if (!role) throw new BrokerError("unauthorized", "Present a token.", { headers: { "www-authenticate": "Bearer" } });
    const grant = { subject: role, channels: ["open"] };
    if (action === "connect" && role === "reader") return { ...grant, clientId: "reader" };
    return action === "publish" && role === "publisher" ? grant : false;
  },
  /** Says yes when the test says so. */
  waits: async (_attempt, decision) => {
    await decision.made;
    return true;
  },
  /** Grants for so many milliseconds. */
  briefly: ({ request, clientId }) => ({
    clientId,
    expiresAt: Date.now() + Number(new URL(request.url).searchParams.get("for")),
  }),
  /** Every request is from who it says that it is. */
  named: ({ request, clientId, channels }) => ({
    clientId,
    channels: channels.length > 0 ? channels : ["everything"],
    subject: request.headers.get("x-subject") ?? undefined,
  }),
  answers: () => new Response("pay first", { status: 402, headers: { "x-price": "7", vary: "Cookie" } }),
  /** Its header fields cannot be changed. */
  redirects: () => Response.redirect("https://login.example/", 302),
  /** As a server that asks another one passes on what it said; @hono/node-server has a global `Response` that this is none of. */
  relays: () => fetch("data:text/plain,denied"),
  throws: () => {
    throw new Error(INNER_TEXT);
  },
  rejects: () => Promise.reject(new Error(INNER_TEXT)),
  nonsense: () => "yes" as unknown as boolean,
  /** Objects without a property that could be told to be wrong. */
  "gives an error": () => new Error(INNER_TEXT) as object,
  "gives a list": () => [] as object,
  "gives a map": () => new Map([["allowed", false]]) as object,
} satisfies Record<string, (attempt: Parameters<Authorize>[0], decision: Decision) => ReturnType<Authorize>>;

type ErrorHandler = NonNullable<BrokerOptions["errorHandler"]>;

/** Ways to answer errors, by name. */
export const errorHandlers = {
  mine: ({ code, status }) => Response.json({ mine: code }, { status, headers: { "x-mine": "yes" } }),
  late: async ({ code, status }) => {
    await new Promise((resolve) => setTimeout(resolve, 1));
    return new Response(`late ${code}`, { status });
  },
  throws: () => {
    throw new Error(INNER_TEXT);
  },
  rejects: () => Promise.reject(new Error(INNER_TEXT)),
  nothing: () => undefined as unknown as Response,
} satisfies Record<string, ErrorHandler>;
