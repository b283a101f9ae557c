// Cross-site request forgery: requests that carry a visitor's cookies and may come from a page of another origin.
import type { Cors } from "./cors.ts";

/** The refusal of a request that may be forged. */
export const FORGED =
  "Request refused: a page of another origin may use cookies only if cors.origins lists it and cors.credentials is set.";

/**
 * Whether a page of another origin may have caused this request with its visitor's credentials. Browsers send cookies and passwords without
 * being asked; only `Sec-Fetch-Site` and `Origin` show which page it was. A bearer token is trusted, because a page can send it only if it
 * has it. With `strict`, a request with a cookie and neither field counts as forged, and so does one that no page caused
 * (`Sec-Fetch-Site: none`).
 */
export function isForgedRequest({ url, headers }: Request, cors: Cors | undefined, strict: boolean): boolean {
  const authorization = headers.get("authorization");
  if (/^Bearer /i.test(authorization ?? "") || !(authorization || headers.has("cookie"))) return false;
  const origin = headers.get("origin");
  if (cors?.trusts(origin)) return false;
  const site = headers.get("sec-fetch-site");
  if (site !== null) return site !== "same-origin" && (strict || site !== "none");
  if (origin === null) return strict && headers.has("cookie");
  return !isSameHost(origin, new URL(url, "http://localhost"));
}

/** Compares hosts, not schemes: a proxy that ends TLS changes the scheme, and may add its own port. */
function isSameHost(origin: string, { hostname, port }: URL): boolean {
  try {
    const from = new URL(origin);
    const usual = from.protocol === "https:" ? "443" : "80";
    return from.hostname === hostname && (from.port === port || (from.port || usual) === port);
  } catch {
    // The origin is not a URL: it is "null" if the page hides it.
    return false;
  }
}
