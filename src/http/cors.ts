// Cross-origin resource sharing: which pages of other origins may read answers.
import { withDefaults } from "../base/validate.ts";

/** Pages of other origins that may use the broker. Without this option, browsers keep the broker's answers from them. */
export interface CorsOptions {
  /**
   * Origins such as `https://app.example`, exactly as browsers send them. `"*"` stands for every origin. It is refused together with
   * `credentials`, because any page could then read what its visitor may read.
   */
  readonly origins: readonly string[];
  /** Whether these pages may use their visitor's cookies, to read and to publish. @default false */
  readonly credentials?: boolean;
  /** Seconds for which a browser may keep the answer to a preflight request, 0 or more. @default 600 */
  readonly maxAge?: number;
}

/** Adds the header fields of the CORS protocol (Fetch standard, section 3.3) to responses. */
export class Cors {
  readonly #origins: ReadonlySet<string>;
  readonly #credentials: boolean;
  readonly #maxAge: number;

  /** @throws `TypeError` for a value that is not an origin, `RangeError` for `maxAge`. */
  constructor(options: CorsOptions) {
    const { origins, credentials, maxAge } = withDefaults<Required<CorsOptions>>(
      "createBroker()",
      "cors option",
      { origins: undefined, credentials: false, maxAge: 600 },
      options,
    );
    if (!Array.isArray(origins)) throw new TypeError("createBroker() refused: cors.origins must be a list.");
    for (const origin of origins) {
      if (origin !== "*" && !isOrigin(origin)) {
        throw new TypeError(
          `createBroker() refused: ${JSON.stringify(origin)} in cors.origins is not an origin, such as "https://app.example".`,
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

  /** Returns a copy of a response that the request's origin may read, if it is allowed to. */
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
    // The application may return the same response again and again, or one whose header fields cannot be changed.
    const copy = new Response(response.body, response);
    copy.headers.append("vary", "Origin");
    for (const [name, value] of Object.entries(fields)) copy.headers.set(name, value);
    return copy;
  }
}

function isOrigin(origin: unknown): boolean {
  // The URL standard gives the origin of an app's web view, such as capacitor://localhost, as "null". Its pages do send it.
  if (typeof origin !== "string" || !/^[a-z][a-z0-9+.-]*:\/\/[^/?#@*\s]+$/.test(origin)) return false;
  try {
    return [origin, "null"].includes(new URL(origin).origin);
  } catch {
    // The origin is not a URL.
    return false;
  }
}
