import { withDefaults } from "../base/validate.ts";

/** Which pages of other origins may use the broker. Off unless it is set: browsers then keep what is answered from them. */
export interface CorsOptions {
  /**
   * The origins, such as `https://app.example`, exactly as browsers send them. `"*"` stands for every one, and is refused together
   * with `credentials`: any page could then read what its visitor may.
   */
  readonly origins: readonly string[];
  /** Whether the pages may use their visitor's cookies: to read, and to publish. @default false */
  readonly credentials?: boolean;
  /** Seconds that a browser may keep the answer to a preflight, 0 or more. @default 600 */
  readonly maxAge?: number;
}

/** Adds what the Fetch standard, section 3.3 asks for. */
export class Cors {
  readonly #origins: ReadonlySet<string>;
  readonly #credentials: boolean;
  readonly #maxAge: number;

  /** @throws `TypeError` for what is no origin. */
  constructor(options: CorsOptions) {
    const { origins, credentials, maxAge } = withDefaults<Required<CorsOptions>>(
      "createBroker()",
      "key of cors option",
      { origins: undefined, credentials: false, maxAge: 600 },
      options,
    );
    if (!Array.isArray(origins)) throw new TypeError("createBroker() refused: cors.origins must be a list.");
    for (const origin of origins) {
      if (origin !== "*" && !isOrigin(origin)) {
        throw new TypeError(
          `createBroker() refused: ${JSON.stringify(origin)} in cors.origins is no origin, such as "https://app.example".`,
        );
      }
    }
    if (credentials && origins.includes("*"))
      throw new TypeError(
        'createBroker() refused: cors.origins "*" with credentials would let any page read as its visitor.',
      );
    if (!Number.isSafeInteger(maxAge) || maxAge < 0)
      throw new RangeError("createBroker() refused: cors.maxAge must be a whole number of seconds, 0 or more.");
    this.#origins = new Set(origins);
    this.#credentials = credentials;
    this.#maxAge = maxAge;
  }

  /** Whether a page of this origin may use its visitor's cookies. */
  trusts(origin: string | null): boolean {
    return origin !== null && this.#credentials && this.#origins.has(origin);
  }

  /** The same answer, readable for the origins that may read it. */
  apply(request: Request, response: Response): Response {
    const origin = request.headers.get("origin");
    const fields: Record<string, string> = {};
    if (origin !== null && (this.#origins.has(origin) || this.#origins.has("*"))) {
      fields["access-control-allow-origin"] = this.#origins.has("*") ? "*" : origin;
      if (this.#credentials) fields["access-control-allow-credentials"] = "true";
      if (request.method === "OPTIONS" && request.headers.has("access-control-request-method")) {
        fields["access-control-allow-methods"] = response.headers.get("allow") ?? "";
        fields["access-control-allow-headers"] =
          "authorization, content-type, cache-control, last-event-id, idempotency-key";
        fields["access-control-max-age"] = String(this.#maxAge);
      } else {
        fields["access-control-expose-headers"] = "fanwire-client-id, retry-after";
      }
    }
    // A response of the application's own may be one that it gives again and again, or whose fields cannot be changed.
    const answer = new Response(response.body, response);
    answer.headers.append("vary", "Origin");
    for (const [name, value] of Object.entries(fields)) answer.headers.set(name, value);
    return answer;
  }
}

function isOrigin(origin: unknown): boolean {
  // An app's origin, such as capacitor://localhost, is one to its web view and has none by the URL standard.
  if (typeof origin !== "string" || !/^[a-z][a-z0-9+.-]*:\/\/[^/?#@*\s]+$/.test(origin)) return false;
  try {
    return [origin, "null"].includes(new URL(origin).origin);
  } catch {
    // Not even a URL.
    return false;
  }
}
