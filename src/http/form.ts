// Reads parameters from a form in the body of a request.
import { BrokerError } from "../base/errors.ts";
import type { NameRules } from "../event/name-rules.ts";
import { type BodyBounds, readText } from "./body.ts";
import { CHANGE_PARAMETERS, checkParameters, singleParameter } from "./query.ts";

/** Returns the parameters of a URL and of a form in the body. @throws {@link BrokerError} as {@link readText} */
export async function formOf(request: Request, query: URLSearchParams, bounds: BodyBounds): Promise<URLSearchParams> {
  if (!/^application\/x-www-form-urlencoded\s*(?:;|$)/i.test(request.headers.get("content-type") ?? ""))
    throw new BrokerError("unsupported-media-type", "Request refused: send application/x-www-form-urlencoded.");
  return new URLSearchParams(`${query}&${await readText(request, bounds)}`);
}

/**
 * Reads which channels a client adds to its stream, or removes from it, and the secret of the stream.
 *
 * @throws {@link BrokerError} as {@link formOf}; `bad-request`, `bad-channel`
 */
export async function readChange(
  request: Request,
  query: URLSearchParams,
  settings: BodyBounds & { readonly allowQuery: readonly string[] },
  names: NameRules,
): Promise<{ readonly secret: string; readonly channels: readonly string[] }> {
  // Servers and proxies write URLs into their logs.
  if (query.has("secret")) throw new BrokerError("bad-request", "Request refused: send the secret in the body.");
  const form = await formOf(request, query, settings);
  checkParameters(form, CHANGE_PARAMETERS, settings.allowQuery, true);
  const secret = singleParameter(form, "secret");
  if (secret === undefined)
    throw new BrokerError("bad-request", "Request refused: send the secret of the stream, from its fanwire-ready.");
  return { secret, channels: names.changed(form.getAll("channel")) };
}
