// Hooks that tests choose by name, because a function does not survive JSON.
import { type Authorize, BrokerError, type BrokerOptions } from "../../../src/index.ts";

/** Text of internal errors, which no client may ever receive. */
export const INTERNAL_TEXT = "inner text: postgres://admin@10.0.0.5";

/** Lets a test decide when `authorize` answers. */
export class Decision {
  #isMade = false;

  /** Polls, because in a Worker a promise settles only in the request that created it. */
  get isMade(): Promise<void> {
    const look = async (): Promise<void> => {
      while (!this.#isMade) await new Promise((resolve) => setTimeout(resolve, 5));
    };
    return look();
  }

  readonly decide = (): void => {
    this.#isMade = true;
  };
}

/** Implementations of `authorize`. */
export const authorizes = {
  everybody: () => true,
  /** Without a token 401. A reader may read `open`, a publisher may publish to it, and nothing else is allowed. */
  roles: ({ request, action }) => {
    const role = request.headers.get("authorization")?.replace("Bearer ", "");
    if (!role) throw new BrokerError("unauthorized", "Present a token.", { headers: { "www-authenticate": "Bearer" } });
    const grant = { subject: role, channels: ["open"] };
    if (action === "connect" && role === "reader") return { ...grant, clientId: "reader" };
    return action === "publish" && role === "publisher" ? grant : false;
  },
  /** Allows the request when the test calls `decide`. */
  waits: async (_access, decision) => {
    await decision.isMade;
    return true;
  },
  /** Grants access for the milliseconds of the parameter `for`. */
  briefly: ({ request, clientId }) => ({
    clientId,
    expiresAt: Date.now() + Number(new URL(request.url).searchParams.get("for")),
  }),
  /** Believes the subject that the request claims. */
  named: ({ request, clientId, channels }) => ({
    clientId,
    channels: channels.length > 0 ? channels : ["everything"],
    subject: request.headers.get("x-subject") ?? undefined,
  }),
  answers: () => new Response("pay first", { status: 402, headers: { "x-price": "7", vary: "Cookie" } }),
  /** A response whose header fields cannot be changed. */
  redirects: () => Response.redirect("https://login.example/", 302),
  /** A response from fetch(), as a server passes on that of another server. @hono/node-server replaces `Response`, so this one is of another class. */
  relays: () => fetch("data:text/plain,denied"),
  throws: () => {
    throw new Error(INTERNAL_TEXT);
  },
  rejects: () => Promise.reject(new Error(INTERNAL_TEXT)),
  nonsense: () => "yes" as unknown as boolean,
  /** Objects without a property that could be recognized as wrong. */
  "gives an error": () => new Error(INTERNAL_TEXT) as object,
  "gives a list": () => [] as object,
  "gives a map": () => new Map([["allowed", false]]) as object,
} satisfies Record<string, (access: Parameters<Authorize>[0], decision: Decision) => ReturnType<Authorize>>;

type ErrorHandler = NonNullable<BrokerOptions["errorHandler"]>;

/** Implementations of `errorHandler`. */
export const errorHandlers = {
  mine: ({ code, status }) => Response.json({ mine: code }, { status, headers: { "x-mine": "yes" } }),
  late: async ({ code, status }) => {
    await new Promise((resolve) => setTimeout(resolve, 1));
    return new Response(`late ${code}`, { status });
  },
  throws: () => {
    throw new Error(INTERNAL_TEXT);
  },
  rejects: () => Promise.reject(new Error(INTERNAL_TEXT)),
  nothing: () => undefined as unknown as Response,
} satisfies Record<string, ErrorHandler>;
